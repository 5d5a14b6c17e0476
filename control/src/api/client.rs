//! The API's client, for the commands.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::view::{Reloaded, Status};
use crate::watch::{Form, Order};

/// How long an answer may take: a reload of a large configuration included.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no director is running here: nobody answers on {0} (another --state-dir?)")]
    NoDirector(PathBuf),
    /// The socket cannot be used.
    #[error("cannot ask the director on {0}: {1}")]
    Connect(PathBuf, #[source] io::Error),
    /// It speaks, but not HTTP as we know it.
    #[error("the director's answer broke off: {0}")]
    Http(#[from] hyper::Error),
    /// It took too long.
    #[error("the director did not answer within {PATIENCE:?}")]
    Silent,
    /// Another answer than was asked for.
    #[error("the director refused ({0}): {1}")]
    Refused(StatusCode, String),
    /// An answer of another version.
    #[error("the director's answer is not understood; is it of another version? {0}")]
    Strange(#[from] serde_json::Error),
}

/// Asks what the director does.
pub async fn status(socket: &Path) -> Result<Status, ClientError> {
    let (code, body) = exchange(socket, Method::GET, "/v1/status").await?;
    parse(code, &body, code.is_success())
}

/// Asks for a reload.
pub async fn reload(socket: &Path) -> Result<Reloaded, ClientError> {
    let (code, body) = exchange(socket, Method::POST, "/v1/reload").await?;
    parse(code, &body, code.is_success() || code == StatusCode::UNPROCESSABLE_ENTITY)
}

fn parse<T: DeserializeOwned>(code: StatusCode, body: &[u8], understood: bool) -> Result<T, ClientError> {
    if !understood {
        return Err(ClientError::Refused(code, String::from_utf8_lossy(body).into_owned()));
    }
    Ok(serde_json::from_slice(body)?)
}

/// Orders a trace or a capture and gives its answers, piece by piece, to `each` until that says `Break`, the director
/// has shown enough or is gone. `begun` is called when the order was taken.
pub async fn watch(
    socket: &Path,
    form: Form,
    order: &Order,
    begun: impl FnOnce(),
    mut each: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<(), ClientError> {
    let path = match form {
        Form::Trace => "/v1/trace",
        Form::Capture => "/v1/capture",
    };
    let stream = connect(socket).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut request = Request::new(Full::new(Bytes::from(serde_json::to_vec(order)?)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = hyper::Uri::from_static(path);
    let json = hyper::header::HeaderValue::from_static("application/json");
    request.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
    request.headers_mut().insert(hyper::header::HOST, hyper::header::HeaderValue::from_static("sluice"));
    let response = timeout(PATIENCE, sender.send_request(request)).await.map_err(|_| ClientError::Silent)??;
    let code = response.status();
    let mut body = response.into_body();
    if !code.is_success() {
        let said = body.collect().await?.to_bytes();
        return Err(ClientError::Refused(code, String::from_utf8_lossy(&said).into_owned()));
    }
    begun();
    // A stream that breaks off has ended, too: the director is gone.
    while let Some(Ok(frame)) = body.frame().await {
        if frame.data_ref().is_some_and(|data| each(data).is_break()) {
            break;
        }
    }
    connection.abort();
    Ok(())
}

async fn connect(socket: &Path) -> Result<UnixStream, ClientError> {
    UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NoDirector(socket.to_owned()),
        _ => ClientError::Connect(socket.to_owned(), error),
    })
}

async fn exchange(socket: &Path, method: Method, path: &'static str) -> Result<(StatusCode, Bytes), ClientError> {
    let stream = connect(socket).await?;
    timeout(PATIENCE, request(stream, method, path)).await.map_err(|_| ClientError::Silent)?
}

async fn request(stream: UnixStream, method: Method, path: &'static str) -> Result<(StatusCode, Bytes), ClientError> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = method;
    *request.uri_mut() = hyper::Uri::from_static(path);
    request.headers_mut().insert(hyper::header::HOST, hyper::header::HeaderValue::from_static("sluice"));
    let exchange = async {
        let response = sender.send_request(request).await?;
        let code = response.status();
        Ok((code, response.into_body().collect().await?.to_bytes()))
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        answer = &mut exchange => answer,
        // The connection may end as soon as the whole answer is there.
        ended = &mut connection => { ended?; exchange.await }
    }
}
