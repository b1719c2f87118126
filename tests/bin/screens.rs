//! Behind `cargo xtask screens`: pictures of the agent's status page and of `capturer top` in the states that an operator
//! meets, for docs/operate.md.
//!
//! ```text
//! a scene: Host (sources, lines) ─▶ an agent ─▶ its health says what the scene is about ─┬▶ Chromium ─▶ NAME-light.png …
//!                                                                                      └▶ top in tmux ─▶ top-NAME.txt
//! ```
//! Nothing is compared: a person looks at the pictures.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, ensure};
use capturer_tests::agent::{Agent, Home, program};
use capturer_tests::loki::{Mood, TestLoki};
use capturer_tests::screens::browser::{Browser, Screen};
use capturer_tests::screens::host::{self, Host};
use capturer_tests::screens::terminal::Terminal;
use capturer_tests::wait::{PATIENCE, wait_until};
use clap::Parser;

/// The agent's usual address; nobody else has it, as the host is our own.
const ADDRESS: &str = "127.0.0.1:8001";
/// How often the page has asked before the picture is taken: by then its curves have a shape.
const POINTS: u64 = 8;
/// The pictures are kept in a repository, so everybody who clones it pays for their size.
const PICTURE_BYTES_MAX: usize = 150 * 1024;

const DESK: Screen = Screen { width: 1280, height: 900, is_phone: false, is_dark: false };
const DARK_DESK: Screen = Screen { is_dark: true, ..DESK };
const PHONE: Screen = Screen { width: 390, height: 844, is_phone: true, is_dark: false };

/// Takes pictures of the status page and of `capturer top`. Needs root, Chromium, tmux and pngquant.
#[derive(Parser)]
#[command(bin_name = "cargo xtask screens")]
struct Arguments {
    /// Only scenes whose name contains one of these.
    names: Vec<String>,
    /// Where the pictures go.
    #[arg(long, value_name = "DIR", default_value = "docs/screens")]
    to: PathBuf,
    /// This process is on the host that `screens::host` made.
    #[arg(long, hide = true)]
    inside: bool,
}

/// A failure, as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Nothing,
    /// Loki's port is closed.
    LokiAway,
    /// The agent forgets to close a descriptor.
    Leak,
    /// dockerd is stopped, as on a machine that swaps.
    DockerFrozen,
}

impl Trouble {
    /// The component of /health that reports it.
    fn component(self) -> Option<&'static str> {
        match self {
            Trouble::Nothing => None,
            Trouble::LokiAway => Some("sink_loki_delivery"),
            Trouble::Leak => Some("leak_detector"),
            Trouble::DockerFrozen => Some("docker"),
        }
    }
}

/// A state of a host, and the screens on which the page is looked at.
struct Scene {
    name: &'static str,
    sources: usize,
    trouble: Trouble,
    screens: &'static [(&'static str, Screen)],
}

const DESKS: &[(&str, Screen)] = &[("light", DESK), ("dark", DARK_DESK)];
const ALL: &[(&str, Screen)] = &[("light", DESK), ("dark", DARK_DESK), ("phone", PHONE)];

const SCENES: [Scene; 6] = [
    Scene { name: "healthy", sources: 30, trouble: Trouble::Nothing, screens: ALL },
    Scene { name: "healthy-300", sources: 300, trouble: Trouble::Nothing, screens: DESKS },
    Scene { name: "loki-away", sources: 30, trouble: Trouble::LokiAway, screens: ALL },
    Scene { name: "loki-away-300", sources: 300, trouble: Trouble::LokiAway, screens: DESKS },
    Scene { name: "leak", sources: 30, trouble: Trouble::Leak, screens: DESKS },
    Scene { name: "docker-frozen", sources: 30, trouble: Trouble::DockerFrozen, screens: DESKS },
];

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = if arguments.inside { run(&arguments).map(|()| ExitCode::SUCCESS) } else { host::enter() };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(arguments: &Arguments) -> Result<()> {
    fs::create_dir_all(&arguments.to).with_context(|| format!("making {}", arguments.to.display()))?;
    let wanted = |scene: &&Scene| {
        arguments.names.is_empty() || arguments.names.iter().any(|name| scene.name.contains(name))
    };
    let mut browser = Browser::start()?;
    for scene in SCENES.iter().filter(wanted) {
        take(scene, &mut browser, &arguments.to).with_context(|| format!("scene {}", scene.name))?;
    }
    Ok(())
}

fn take(scene: &Scene, browser: &mut Browser, to: &Path) -> Result<()> {
    let (host, loki, home) = (Host::start(scene.sources)?, TestLoki::start()?, Home::new()?);
    let url = loki.url();
    let mut loki = Some(loki);
    let faults = home.path().join("faults");
    fs::write(&faults, "")?;
    let agent = start(scene, &home, &url, &faults)?;
    wait_until("every source to be followed", PATIENCE, || all_are_followed(&agent, &host))?;
    wait_until("lines", PATIENCE, || {
        let delivered = agent.metric("delivered_lines_total{sink=\"local_file\"}")?;
        ensure!(delivered > scene.sources as f64, "{delivered} delivered");
        Ok(())
    })?;
    wait_until("Loki to have lines", PATIENCE, || loki.as_ref().is_some_and(|loki| loki.count() > 0))?;
    match scene.trouble {
        Trouble::Nothing => {}
        Trouble::LokiAway => {
            // Open connections would still be served.
            if let Some(loki) = loki.take() {
                loki.set(Mood::Away);
            }
        }
        Trouble::Leak => fs::write(&faults, "forget-descriptor")?,
        Trouble::DockerFrozen => host.freeze_docker(),
    }
    wait_until("health to tell of it, and of nothing else", PATIENCE, || tells_of(&agent, scene.trouble))?;

    browser.show_on(DESK)?;
    browser.open(&format!("http://{ADDRESS}/"))?;
    for (kind, screen) in scene.screens {
        browser.show_on(*screen)?;
        // The page lays itself out when it asks: wait until it has asked since the screen changed.
        let asked = browser.value_of(ASKED)?.as_u64().unwrap_or(0);
        browser.wait_for(&format!("{ASKED} >= {}", POINTS.max(asked + 2)))?;
        let picture = reduced(&browser.picture()?)?;
        let name = format!("{}-{kind}.png", scene.name);
        ensure!(picture.len() <= PICTURE_BYTES_MAX, "{name} has {} bytes", picture.len());
        fs::write(to.join(&name), &picture)?;
        println!("{name}: {} bytes", picture.len());
    }
    let terminal = Terminal::start(home.path(), &program(), &["top", "--admin", ADDRESS])?;
    let shown = terminal
        .wait_for("top to show rates", |shown| shown.contains("SOURCE") && !shown.contains(" 0.0 lines/s"))?;
    let name = format!("top-{}.txt", scene.name);
    fs::write(to.join(&name), shown)?;
    println!("{name}");
    wait_until("it is still so", PATIENCE, || tells_of(&agent, scene.trouble))?;
    agent.kill()
}

/// How often the page has asked the agent: its first card has a point for each time.
const ASKED: &str = "(document.querySelector('polyline')?.points.numberOfItems ?? 0)";

fn start(scene: &Scene, home: &Home, loki: &str, faults: &Path) -> Result<Agent> {
    let config = format!(
        "data_dir: /var/lib/capturer\nadmin: {{listen: \"{ADDRESS}\"}}\nlog: {{level: info}}\n\
         sinks:\n  local_file: {{directory: /var/lib/logs}}\n  loki: {{enabled: true, url: \"{loki}\"}}\n{}\
         resource_monitoring: {{check_interval: 1s}}\n",
        Host::config()
    );
    let program = if scene.trouble == Trouble::Leak { faulty()? } else { program() };
    let agent = home.launch_program(&config, &program, &[("CAPTURER_FAULTS", faults)])?;
    wait_until("the agent to be ready", PATIENCE, || agent.get("/readyz"))?;
    Ok(agent)
}

fn faulty() -> Result<PathBuf> {
    std::env::var_os("CAPTURER_FAULTY_BIN").map(PathBuf::from).context(
        "CAPTURER_FAULTY_BIN names the agent with faults; `cargo xtask screens` builds it and sets this",
    )
}

fn all_are_followed(agent: &Agent, host: &Host) -> Result<()> {
    let streams = agent.streams()?;
    let is_followed = |name: &String| {
        let mut rows = streams.iter().filter(|row| row["name"] == name.as_str()).peekable();
        rows.peek().is_some() && rows.all(|row| row["state"] == "following")
    };
    let missing: Vec<&String> = host.names().iter().filter(|name| !is_followed(name)).collect();
    ensure!(missing.is_empty(), "{} are not, the first is {}", missing.len(), missing[0]);
    Ok(())
}

fn tells_of(agent: &Agent, trouble: Trouble) -> Result<()> {
    let health: serde_json::Value = serde_json::from_str(&agent.ask("/health")?.1)?;
    let components = health["components"].as_object().context("no components")?;
    let bad = components.iter().filter(|(_, told)| told["ok"] == false).map(|(name, _)| name.as_str());
    let bad: Vec<&str> = bad.collect();
    ensure!(bad == trouble.component().into_iter().collect::<Vec<_>>(), "{health}");
    Ok(())
}

/// With a palette, as a page has few colours.
fn reduced(png: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new("pngquant")
        .args(["--speed", "1", "--strip", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting pngquant")?;
    // It reads all its input before it writes.
    child.stdin.take().context("no pipe to pngquant")?.write_all(png)?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "pngquant ended with {}", output.status);
    Ok(output.stdout)
}
