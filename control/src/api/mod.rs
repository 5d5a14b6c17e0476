//! The API: HTTP and JSON on a Unix socket that only its owner may open.
//!
//! `GET /v1/status`, `GET /v1/services`, `GET /v1/counters`, `POST /v1/reload`; `POST /v1/trace` and `POST /v1/capture`
//! with an [`Order`], whose answers go on until somebody ends them. Each request becomes a [`Request`] to the
//! control loop, which alone knows the answer; so handlers share no state with it.

pub mod client;
pub mod view;

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use crate::watch::{Form, Order, Refusal, Viewer};
use view::{Reloaded, Status};

/// A question to the control loop.
#[derive(Debug)]
pub enum Request {
    /// What the director does now.
    Status(oneshot::Sender<Status>),
    /// Read the configuration again.
    Reload(oneshot::Sender<Reloaded>),
    /// Look at packets.
    Watch(Order, Form, oneshot::Sender<Result<Viewer, Refusal>>),
}

/// Where questions go.
type Questions = mpsc::Sender<Request>;

/// The socket cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the API socket {path}: {source}")]
pub struct ApiError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The open API; its socket goes with it.
#[derive(Debug)]
pub struct Api {
    path: PathBuf,
    server: tokio::task::JoinHandle<()>,
}

impl Api {
    /// Opens the socket, in place of one that a dead director left, and answers on it by asking `questions`.
    pub fn open(path: &Path, questions: Questions) -> Result<Self, ApiError> {
        let listener = listen(path).map_err(|source| ApiError { path: path.to_owned(), source })?;
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router(questions)).await {
                tracing::error!(%error, "the API ended");
            }
        });
        Ok(Self { path: path.to_owned(), server })
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.server.abort();
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove the API socket");
        }
    }
}

/// Binds under another name and renames, so that nobody can connect before the mode is 0600.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&beside)?;
    fs::set_permissions(&beside, Permissions::from_mode(0o600))?;
    fs::rename(&beside, path)?;
    Ok(listener)
}

fn router(questions: Questions) -> Router {
    Router::new()
        .route("/v1/status", get(|State(questions)| answer(questions, Request::Status, |status| status)))
        .route("/v1/services", get(|State(questions)| answer(questions, Request::Status, |status| status.services)))
        .route("/v1/counters", get(|State(questions)| answer(questions, Request::Status, |status| status.counters)))
        .route("/v1/reload", post(reload))
        .route("/v1/trace", post(|State(questions), Json(order)| watch(questions, order, Form::Trace)))
        .route("/v1/capture", post(|State(questions), Json(order)| watch(questions, order, Form::Capture)))
        .with_state(questions)
}

/// Asks the control loop and gives a part of its answer.
async fn answer<A, P: serde::Serialize>(
    questions: Questions,
    question: impl FnOnce(oneshot::Sender<A>) -> Request,
    part: impl FnOnce(A) -> P,
) -> Response {
    match ask(&questions, question).await {
        Some(answer) => Json(part(answer)).into_response(),
        None => stopping(),
    }
}

/// 200 with the new configuration in use, 422 with the old one.
async fn reload(State(questions): State<Questions>) -> Response {
    match ask(&questions, Request::Reload).await {
        Some(answer) if answer.applied => Json(answer).into_response(),
        Some(answer) => (StatusCode::UNPROCESSABLE_ENTITY, Json(answer)).into_response(),
        None => stopping(),
    }
}

/// 200 with a stream; 409 while another runs; 422 for an order that is not understood.
async fn watch(questions: Questions, order: Order, form: Form) -> Response {
    let kind = match form {
        Form::Trace => "application/x-ndjson",
        Form::Capture => "application/x-pcapng",
    };
    match ask(&questions, |answer| Request::Watch(order, form, answer)).await {
        Some(Ok(viewer)) => ([(CONTENT_TYPE, kind)], Body::from_stream(viewer.stream())).into_response(),
        Some(Err(refusal)) => {
            let code = match refusal {
                Refusal::Busy => StatusCode::CONFLICT,
                Refusal::Filter(_) => StatusCode::UNPROCESSABLE_ENTITY,
            };
            (code, refusal.to_string()).into_response()
        }
        None => stopping(),
    }
}

async fn ask<A>(questions: &Questions, question: impl FnOnce(oneshot::Sender<A>) -> Request) -> Option<A> {
    let (sender, answer) = oneshot::channel();
    questions.send(question(sender)).await.ok()?;
    answer.await.ok()
}

fn stopping() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the director is stopping").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reload_is_asked_and_its_refusal_is_an_answer_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sluice.sock");
        fs::write(&path, "left behind").unwrap();
        let (sender, mut questions) = mpsc::channel(1);
        let api = Api::open(&path, sender).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        tokio::spawn(async move {
            for applied in [true, false] {
                let Some(Request::Reload(answer)) = questions.recv().await else { panic!("not a reload") };
                answer.send(Reloaded { applied, messages: vec!["said".into()] }).unwrap();
            }
        });
        assert!(client::reload(&path).await.unwrap().applied);
        assert!(!client::reload(&path).await.unwrap().applied);
        assert!(
            matches!(client::status(&path).await, Err(client::ClientError::Refused(..))),
            "nobody answers any more"
        );
        drop(api);
        assert!(!path.exists());
        assert!(matches!(client::reload(&path).await, Err(client::ClientError::NoDirector(_))));
    }
}
