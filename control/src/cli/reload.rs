//! `sluice reload`: the running director reads its configuration again.

use std::process::ExitCode;

use super::{NO_DIRECTOR, StateArguments, block_on, fail, say};
use crate::api::client::{self, ClientError};
use crate::state_dir::StateDir;

pub(super) fn run(arguments: &StateArguments) -> ExitCode {
    let socket = StateDir::new(&arguments.state_dir).socket();
    match block_on(client::reload(&socket)) {
        Ok(Ok(answer)) => {
            answer.messages.iter().for_each(|message| say(message));
            if answer.applied { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Ok(Err(error)) => no_answer("cannot reload", &error),
        Err(error) => fail("cannot reload", &error),
    }
}

/// Says why the director did not answer.
pub(super) fn no_answer(what: &str, error: &ClientError) -> ExitCode {
    let code = fail(what, error);
    if matches!(error, ClientError::NoDirector(_)) { ExitCode::from(NO_DIRECTOR) } else { code }
}
