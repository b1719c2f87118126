//! Signals, on a thread of their own: a stuck capture loop must not make the agent deaf to the second one.

use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::telemetry::own_log;

/// For the log to be written by who is told twice.
const PATIENCE: Duration = Duration::from_millis(500);
/// How a process ends that was told twice: by SIGINT, as shells count it.
const INTERRUPTED: i32 = 130;

/// Calls `stop` at the first SIGTERM or SIGINT and ends the process at the second. SIGHUP calls `reload`; without one it
/// ends the process, as it does by itself.
///
/// # Errors
/// When the thread or its runtime can't be made.
pub fn start(
    stop: impl Fn() + Send + 'static,
    reload: Option<impl Fn() + Send + 'static>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("signals: making their runtime")?;
    let (mut terminate, mut interrupt, mut hangup) = {
        let _guard = runtime.enter();
        let listen = |kind| signal(kind).context("signals: listening");
        // By default a write beyond the limit of file sizes (LimitFSIZE) kills the process. Once a handler is installed, the
        // write fails with EFBIG instead, which the sink names.
        drop(listen(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?);
        let hangup = reload.as_ref().map(|_| listen(SignalKind::hangup())).transpose()?;
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?, hangup)
    };
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

async fn hung_up(hangup: Option<&mut Signal>) -> Option<()> {
    match hangup {
        Some(hangup) => hangup.recv().await,
        None => None,
    }
}
