//! How a container is to be run.

/// A container to run; everything not said is Docker's default.
#[derive(Clone, Debug, Default)]
pub struct RunSpec {
    pub(super) arguments: Vec<String>,
    pub(super) image: Option<String>,
    pub(super) command: Vec<String>,
}

impl RunSpec {
    /// A container that runs a shell script.
    pub fn sh(script: &str) -> Self {
        Self::command(&["sh", "-c", script])
    }

    /// A container that runs a program of the image.
    pub fn command(command: &[&str]) -> Self {
        Self { command: command.iter().map(|&word| word.to_owned()).collect(), ..Self::default() }
    }

    /// Its name.
    pub fn name(self, name: &str) -> Self {
        self.argument("--name").argument(name)
    }

    /// Another image than [`IMAGE`](super::IMAGE).
    pub fn image(mut self, image: &str) -> Self {
        self.image = Some(image.to_owned());
        self
    }

    /// Its log driver: `json-file`, `local`, `none`.
    pub fn log_driver(self, driver: &str) -> Self {
        self.argument("--log-driver").argument(driver)
    }

    /// An option of its log driver, as `max-size`, `10m`.
    pub fn log_opt(self, key: &str, value: &str) -> Self {
        self.argument("--log-opt").argument(&format!("{key}={value}"))
    }

    /// A label.
    pub fn label(self, key: &str, value: &str) -> Self {
        self.argument("--label").argument(&format!("{key}={value}"))
    }

    /// With a terminal: channels merged, lines end in CR LF.
    pub fn tty(self) -> Self {
        self.argument("--tty")
    }

    /// Removed, with its logs, as soon as it ends.
    pub fn rm(self) -> Self {
        self.argument("--rm")
    }

    /// Any other word before the image, as `--restart=always`.
    pub fn argument(mut self, word: &str) -> Self {
        self.arguments.push(word.to_owned());
        self
    }
}
