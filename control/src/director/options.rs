//! What `sluice run` was told: the same for the guard and for the director that it starts.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::config::LoadOptions;

/// Options of a director.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// Configuration files, read as one configuration.
    pub files: Vec<PathBuf>,
    /// A file for the block `dataplane`, read after the others if it exists.
    pub dataplane_file: PathBuf,
    /// What `@id` lines of the configuration are compared with.
    pub config_id: String,
    /// The state directory.
    pub state_dir: PathBuf,
    /// `--log`.
    pub log: Option<String>,
}

impl RunOptions {
    /// The command line of a director below a guard, without the program's name.
    pub fn director_arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["director".into(), "--state-dir".into(), self.state_dir.clone().into()];
        arguments.extend(["--dataplane-file".into(), self.dataplane_file.clone().into()]);
        arguments.extend(["--config-id".into(), self.config_id.clone().into()]);
        for file in &self.files {
            arguments.extend(["-f".into(), file.clone().into()]);
        }
        if let Some(level) = &self.log {
            arguments.extend(["--log".into(), level.into()]);
        }
        arguments
    }

    /// How the configuration is read.
    pub fn load_options(&self) -> LoadOptions {
        LoadOptions {
            config_id: self.config_id.clone(),
            dataplane_file: Some(self.dataplane_file.clone()),
            ..LoadOptions::default()
        }
    }
}
