//! Real writers that rotate their own files: Python's handlers, lumberjack's naming, svlogd, multilog, and logback and log4j2
//! where a Java is installed. The agent is up, down, stopped or killed meanwhile; each line comes once, in order, and no
//! loss is declared.
//!
//! `CAPTURER_WRITER_ROUNDS=200` for a long run. No writer may remove a file that nobody had time to read, so each keeps more
//! files than a round makes.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use capturer_tests::amount::number;
use capturer_tests::wait::wait_until;
use capturer_tests::walk::watched::{Watched, While};

/// Rounds of a usual run.
const ROUNDS: u64 = 12;
/// Lines of a round; some 35 bytes each, and the writers rotate every 1,000 bytes.
const LINES: usize = 70;

/// A program that writes as many numbered lines as it is told to.
trait Writer {
    /// Writes so many, and comes back when they are in the file.
    fn write(&mut self, lines: usize) -> Result<()>;
}

/// One that takes orders on its standard input.
struct Ordered {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Ordered {
    fn start(command: &mut Command) -> Result<Ordered> {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.with_context(|| format!("starting {command:?}"))?;
        let input = child.stdin.take().context("no input")?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        Ok(Ordered { child, input, output })
    }
}

impl Writer for Ordered {
    fn write(&mut self, lines: usize) -> Result<()> {
        writeln!(self.input, "{lines}")?;
        let mut said = String::new();
        self.output.read_line(&mut said)?;
        ensure!(said.trim() == "done", "the writer said {said:?}");
        Ok(())
    }
}

impl Drop for Ordered {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// svlogd or multilog: what comes in on standard input is a line of the log.
struct Piped {
    child: Child,
    input: Option<ChildStdin>,
    folder: PathBuf,
    written: usize,
}

impl Piped {
    fn start(command: &mut Command, folder: &Path) -> Result<Piped> {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = child.with_context(|| format!("starting {command:?}"))?;
        let input = child.stdin.take();
        Ok(Piped { child, input, folder: folder.to_owned(), written: 0 })
    }

    /// Whether the last line is in a file.
    fn has(&self, line: &str) -> bool {
        let files = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        files
            .filter_map(|entry| fs::read(entry.path()).ok())
            .any(|bytes| String::from_utf8_lossy(&bytes).contains(line))
    }
}

impl Writer for Piped {
    fn write(&mut self, lines: usize) -> Result<()> {
        let input = self.input.as_mut().context("no input")?;
        for number in self.written..self.written + lines {
            writeln!(input, "{}", line(number))?;
        }
        self.written += lines;
        let last = line(self.written - 1);
        wait_until("the last line to be written", std::time::Duration::from_secs(60), || self.has(&last))
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        // At the end of its input it ends by itself.
        self.input = None;
        let _ = self.child.wait();
    }
}

fn line(number: usize) -> String {
    format!("line {number:07} of a program that logs")
}

/// Lets a writer write in rounds; `behind` says how many may pass before the agent has read everything.
fn follow(paths: &[&str], start: impl FnOnce(&Watched) -> Result<Box<dyn Writer>>) -> Result<()> {
    let mut watched = Watched::start(paths)?;
    let mut writer = start(&watched)?;
    let mut lines = Vec::new();
    let mut write = |lines: &mut Vec<String>, count: usize| -> Result<()> {
        writer.write(count)?;
        lines.extend((lines.len()..lines.len() + count).map(line));
        Ok(())
    };
    for round in 0..number("CAPTURER_WRITER_ROUNDS", ROUNDS)? {
        write(&mut lines, LINES)?;
        if round % 3 == 0 {
            watched.wait_for(&lines)?;
        }
        let state = While::ALL[(round % 4) as usize];
        watched
            .while_it_is(state, || write(&mut lines, LINES))
            .with_context(|| format!("round {round}, {state:?}"))?;
    }
    watched.finish(&lines, |_| false, false)
}

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("writers").join(name)
}

fn python(paths: &[&str], kind: &str) -> Result<()> {
    follow(paths, |watched| {
        let mut command = Command::new("python3");
        command.arg(here("python.py")).arg(watched.logs().join("app.log")).arg(kind);
        Ok(Box::new(Ordered::start(&mut command)?))
    })
}

/// `app.log`, `app.log.1` … `app.log.30`.
#[test]
fn python_by_size() -> Result<()> {
    python(&["app.log"], "rotating")
}

/// `app.log.2026-11-26`
#[test]
fn python_at_midnight() -> Result<()> {
    python(&["app.log*"], "midnight")
}

/// `app.log.2026-11-26_10`
#[test]
fn python_by_the_hour() -> Result<()> {
    python(&["app.log*"], "hourly")
}

/// `app.log.2026-11-26_10-00-00`
#[test]
fn python_by_the_second() -> Result<()> {
    python(&["*"], "secondly")
}

/// `app-2026-11-26T10-00-00.000.log`
#[test]
fn lumberjack() -> Result<()> {
    python(&["*.log"], "lumberjack")
}

/// `current`, `@400000006a123456789abcde.s`
#[test]
fn svlogd() -> Result<()> {
    follow(&["current", "@*"], |watched| {
        fs::write(watched.logs().join("config"), "s1000\nn50\n")?;
        let mut command = Command::new("svlogd");
        command.arg(watched.logs());
        Ok(Box::new(Piped::start(&mut command, &watched.logs())?))
    })
}

/// The same names, and its files are 4,096 bytes at the least.
#[test]
fn multilog() -> Result<()> {
    follow(&["current", "@*"], |watched| {
        let mut command = Command::new("multilog");
        command.args(["s4096", "n50"]).arg(watched.logs());
        Ok(Box::new(Piped::start(&mut command, &watched.logs())?))
    })
}

/// Where Debian puts its jars.
const JARS: &str = "/usr/share/java";

/// A Java that compiles what it runs, and these jars; if not, says so.
fn java(which: &str, jars: &[&str], paths: &[&str], config: &str) -> Result<()> {
    let has_java = Command::new("javac").arg("-version").output().is_ok_and(|output| output.status.success());
    if !has_java || !jars.iter().all(|jar| Path::new(JARS).join(jar).exists()) {
        println!("skipped: a JDK with {} is not installed", jars.join(", "));
        return Ok(());
    }
    let class_path: Vec<String> = jars.iter().map(|jar| format!("{JARS}/{jar}")).collect();
    follow(paths, |watched| {
        let file = watched.path().join(format!("{which}.xml"));
        fs::write(&file, config.replace("LOGS", &watched.logs().display().to_string()))?;
        let mut command = Command::new("java");
        command
            .arg(format!("-Dlogback.configurationFile={}", file.display()))
            .arg(format!("-Dlog4j2.configurationFile={}", file.display()))
            .args(["-cp", &class_path.join(":")])
            .arg(here("Java.java"))
            .arg(which);
        Ok(Box::new(Ordered::start(&mut command)?))
    })
}

const LOGBACK: [&str; 3] = ["logback-classic.jar", "logback-core.jar", "slf4j-api.jar"];

/// `app.1.log` … `app.20.log`, all of them renamed at each rotation.
#[test]
fn logback_by_size() -> Result<()> {
    java(
        "logback",
        &LOGBACK,
        &["*.log"],
        r#"<configuration>
  <appender name="A" class="ch.qos.logback.core.rolling.RollingFileAppender">
    <file>LOGS/app.log</file>
    <rollingPolicy class="ch.qos.logback.core.rolling.FixedWindowRollingPolicy">
      <fileNamePattern>LOGS/app.%i.log</fileNamePattern><minIndex>1</minIndex><maxIndex>20</maxIndex>
    </rollingPolicy>
    <triggeringPolicy class="ch.qos.logback.core.rolling.SizeBasedTriggeringPolicy"><maxFileSize>1000</maxFileSize></triggeringPolicy>
    <encoder><pattern>%msg%n</pattern></encoder>
  </appender>
  <root level="info"><appender-ref ref="A"/></root>
</configuration>"#,
    )
}

/// `app-2026-11-26-1.log`
#[test]
fn log4j2_by_date_and_size() -> Result<()> {
    java(
        "log4j2",
        &["log4j-api.jar", "log4j-core.jar"],
        &["*.log"],
        r#"<Configuration status="error">
  <Appenders>
    <RollingFile name="A" fileName="LOGS/app.log" filePattern="LOGS/app-%d{yyyy-MM-dd}-%i.log">
      <PatternLayout pattern="%m%n"/>
      <SizeBasedTriggeringPolicy size="1000"/>
      <DefaultRolloverStrategy max="1000"/>
    </RollingFile>
  </Appenders>
  <Loggers><Root level="info"><AppenderRef ref="A"/></Root></Loggers>
</Configuration>"#,
    )
}
