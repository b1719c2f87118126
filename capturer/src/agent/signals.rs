//! Signals, on a thread of their own: neither a stuck capture loop nor a start that hangs must keep the agent from seeing
//! them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use crate::shell::privilege;
use crate::telemetry::own_log;

/// How long the last words wait for the log to be written.
const PATIENCE: Duration = Duration::from_millis(500);
/// Exit code after the second signal: that of SIGINT, as shells count it.
const INTERRUPTED: i32 = 130;
/// How long a start may go on after a signal. Most starts end within a second, and the agent then stops in order.
const START_PATIENCE: Duration = Duration::from_secs(5);
const STOPPED_AMID_A_START: &str = "told to stop while the start waits; ending without it. Nothing was captured yet, and \
                                    the next start resumes from the saved positions";

/// Listens to signals. Those that came since [`listen`] are answered by [`Signals::start`].
pub struct Signals(Arc<Mutex<Phase>>);

type Handler = Box<dyn Fn() + Send>;

enum Phase {
    /// What is asked for waits for somebody who can do it.
    Starting {
        stop: bool,
        reload: bool,
    },
    Running {
        stop: Handler,
        reload: Option<Handler>,
    },
}

/// From now on no signal that the agent answers ends the process by itself. A start takes as long as the kernel needs
/// to load the probe's programs, and `systemctl reload` may come at once. The thread renounces every right, since it is made
/// while the process still has them all. Without `reloads` SIGHUP ends the process, which is its default.
///
/// # Errors
/// When the thread or its runtime can't be made.
pub fn listen(reloads: bool) -> anyhow::Result<Signals> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .context("signals: making their runtime")?;
    let guard = runtime.enter();
    let listen = |kind| signal(kind).context("signals: listening");
    // By default a write beyond the limit of file sizes (LimitFSIZE) kills the process. Once a handler is installed, the
    // write fails with EFBIG instead, which the sink names.
    drop(listen(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?);
    let mut hangup = reloads.then(|| listen(SignalKind::hangup())).transpose()?;
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let mut unused = Unused::listen()?;
    drop(guard);
    let phase = Arc::new(Mutex::new(Phase::Starting { stop: false, reload: false }));
    let signals = Signals(Arc::clone(&phase));
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            privilege::renounce_in_log();
            runtime.block_on(async move {
                let (mut count, mut starts_until) = (0, None);
                loop {
                    tokio::select! {
                        _ = terminate.recv() => {}
                        _ = interrupt.recv() => {}
                        Some(()) = hung_up(hangup.as_mut()) => {
                            #[cfg(feature = "test-faults")]
                            crate::faults::here();
                            lock(&phase).reload();
                            continue;
                        }
                        name = unused.recv() => {
                            tracing::info!("{name} came and is ignored: the agent has no use for it");
                            continue;
                        }
                        () = reached(starts_until) => {
                            starts_until = None;
                            if matches!(*lock(&phase), Phase::Starting { .. }) {
                                own_log::last_words(STOPPED_AMID_A_START, PATIENCE);
                                std::process::exit(0);
                            }
                            continue;
                        }
                    }
                    count += 1;
                    if count > 1 {
                        own_log::last_words("told to stop a second time; ending at once", PATIENCE);
                        std::process::exit(INTERRUPTED);
                    }
                    if !lock(&phase).stop() {
                        starts_until = Some(Instant::now() + START_PATIENCE);
                    }
                }
            });
        })
        .context("signals: starting their thread")?;
    Ok(signals)
}

impl Signals {
    /// Calls `stop` at the first SIGTERM or SIGINT, or at once if it came already; the second ends the process. SIGHUP calls
    /// `reload`.
    pub fn start(self, stop: impl Fn() + Send + 'static, reload: Option<impl Fn() + Send + 'static>) {
        let reload = reload.map(|reload| Box::new(reload) as Handler);
        let running = Phase::Running { stop: Box::new(stop), reload };
        let mut phase = lock(&self.0);
        if let Phase::Starting { stop, reload } = std::mem::replace(&mut *phase, running) {
            if reload {
                phase.reload();
            }
            if stop {
                phase.stop();
            }
        }
    }
}

fn lock(phase: &Mutex<Phase>) -> std::sync::MutexGuard<'_, Phase> {
    // Whole values only are written.
    phase.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Phase {
    /// Whether somebody was there to be told.
    fn stop(&mut self) -> bool {
        match self {
            Phase::Starting { stop, .. } => *stop = true,
            Phase::Running { stop, .. } => stop(),
        }
        matches!(self, Phase::Running { .. })
    }

    fn reload(&mut self) {
        match self {
            Phase::Starting { reload, .. } => *reload = true,
            Phase::Running { reload: Some(reload), .. } => reload(),
            Phase::Running { reload: None, .. } => {}
        }
    }
}

/// Signals that the agent has no use for. By default each ends the process without a word, and operators send them to
/// programs that they expect to answer: SIGUSR1 asks many a daemon to open its log again.
struct Unused([Signal; 3]);

impl Unused {
    /// To be called within a runtime.
    fn listen() -> anyhow::Result<Unused> {
        let listen = |kind| signal(kind).context("signals: listening");
        let alarm = listen(SignalKind::alarm())?;
        Ok(Unused([listen(SignalKind::user_defined1())?, listen(SignalKind::user_defined2())?, alarm]))
    }

    /// The name of the next that comes.
    async fn recv(&mut self) -> &'static str {
        let [user1, user2, alarm] = &mut self.0;
        tokio::select! {
            _ = user1.recv() => "SIGUSR1",
            _ = user2.recv() => "SIGUSR2",
            _ = alarm.recv() => "SIGALRM",
        }
    }
}

async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn hung_up(hangup: Option<&mut Signal>) -> Option<()> {
    match hangup {
        Some(hangup) => hangup.recv().await,
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal as Sent, getpid, kill_process};

    /// Without a handler the first of them would end this process, as it would end the agent.
    #[test]
    fn a_signal_without_a_use_ends_nothing_and_is_named() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        runtime.block_on(async {
            let mut unused = Unused::listen().expect("handlers");
            for (sent, name) in [(Sent::USR1, "SIGUSR1"), (Sent::USR2, "SIGUSR2"), (Sent::ALARM, "SIGALRM")] {
                kill_process(getpid(), sent).expect("sent");
                assert_eq!(unused.recv().await, name);
            }
        });
    }
}
