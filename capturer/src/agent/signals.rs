//! Signals, on a thread of their own: a stuck capture loop must not keep the agent from seeing the second signal.

use std::time::Duration;

use anyhow::Context as _;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::telemetry::own_log;

/// How long the second signal waits for the log to be written.
const PATIENCE: Duration = Duration::from_millis(500);
/// Exit code after the second signal: that of SIGINT, as shells count it.
const INTERRUPTED: i32 = 130;

/// Signals that arrived since [`listen`] wait here for [`Signals::start`].
pub struct Signals {
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
}

/// From now on no signal that the agent answers ends the process by itself. A start takes as long as the kernel needs
/// to load the probe's programs, and `systemctl reload` may come at once. This makes no thread, because a thread would
/// keep every capability.
///
/// # Errors
/// When the runtime can't be made.
pub fn listen(reloads: bool) -> anyhow::Result<Signals> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("signals: making their runtime")?;
    let guard = runtime.enter();
    let listen = |kind| signal(kind).context("signals: listening");
    // By default a write beyond the limit of file sizes (LimitFSIZE) kills the process. Once a handler is installed, the
    // write fails with EFBIG instead, which the sink names.
    drop(listen(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?);
    let hangup = reloads.then(|| listen(SignalKind::hangup())).transpose()?;
    let (terminate, interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    drop(guard);
    Ok(Signals { runtime, terminate, interrupt, hangup })
}

impl Signals {
    /// Calls `stop` at the first SIGTERM or SIGINT and ends the process at the second. SIGHUP calls `reload`; without
    /// one it ends the process, which is its default.
    ///
    /// # Errors
    /// When the thread can't be made.
    pub fn start(
        self,
        stop: impl Fn() + Send + 'static,
        reload: Option<impl Fn() + Send + 'static>,
    ) -> anyhow::Result<()> {
        let Signals { runtime, mut terminate, mut interrupt, mut hangup } = self;
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                runtime.block_on(async move {
                    let mut count = 0;
                    loop {
                        tokio::select! {
                            _ = terminate.recv() => {}
                            _ = interrupt.recv() => {}
                            Some(()) = hung_up(hangup.as_mut()) => {
                                #[cfg(feature = "test-faults")]
                                crate::faults::here();
                                if let Some(reload) = &reload {
                                    reload();
                                }
                                continue;
                            }
                        }
                        count += 1;
                        if count > 1 {
                            own_log::last_words("told to stop a second time; ending at once", PATIENCE);
                            std::process::exit(INTERRUPTED);
                        }
                        stop();
                    }
                });
            })
            .context("signals: starting their thread")?;
        Ok(())
    }
}

async fn hung_up(hangup: Option<&mut Signal>) -> Option<()> {
    match hangup {
        Some(hangup) => hangup.recv().await,
        None => None,
    }
}
