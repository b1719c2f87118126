//! What one answer of the Engine may do, and what it may not.

use super::*;
use crate::capture::core::bench::Bench;
use crate::capture::io::{BodyOutcome, HttpAnswer, RequestError};
use crate::model::docker;

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const NO_SUCH: &[u8] = br#"{"message":"No such container: aaaa"}"#;

struct Scene {
    bench: Bench,
    discovery: Discovery,
    told: Vec<DiscoveryEvent>,
}

impl Scene {
    /// The event stream is open, and nothing was listed yet.
    fn new() -> Scene {
        let mut bench = Bench::new(1);
        let mut discovery = Discovery::new();
        discovery.start(&mut bench.cx());
        discovery.on_opened(Ok((200, Vec::new())), &mut bench.cx());
        Scene { bench, discovery, told: Vec::new() }
    }

    /// Answers every request under way; for an unnamed container with a 404.
    fn answer(&mut self, list: &[&str], inspect: impl Fn(&str) -> HttpAnswer) {
        for _ in 0..10 {
            let questions = self.bench.actions().into_iter().filter_map(|action| match action {
                Action::Get { request, path } => Some((request, path)),
                _ => None,
            });
            let questions: Vec<_> = questions.collect();
            for (request, path) in questions {
                let rows = || {
                    list.iter().map(
                        |id| serde_json::json!({"Id": id, "State": "running", "Names": ["/x/alias", "/old"]}),
                    )
                };
                let result = match path.strip_prefix("/containers/").and_then(|rest| rest.split_once('/')) {
                    Some((id, _)) => inspect(id),
                    None => Ok((200, serde_json::Value::Array(rows().collect()).to_string().into_bytes())),
                };
                self.discovery.on_answer(request, result, &mut self.bench.cx(), &mut self.told);
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        self.bench.now.mono_ms += ms;
        self.discovery.on_timer(&mut self.bench.cx());
    }

    fn hear(&mut self, action: &str, id: &str) {
        let event = serde_json::json!({
            "Action": action, "Actor": {"ID": id, "Attributes": {"name": "short", "image": "i", "team": "a"}}
        });
        let line = format!("{event}\n").into_bytes();
        self.discovery.on_read(BodyOutcome::Bytes, line, &mut self.bench.cx(), &mut self.told);
    }

    /// What was reported since the last call, as words.
    fn told(&mut self) -> Vec<String> {
        let told = std::mem::take(&mut self.told);
        let words = told.into_iter().map(|told| match told {
            DiscoveryEvent::Container { inspect, was_there } => {
                format!("container {}{}", &inspect.id[..1], if was_there { " was there" } else { "" })
            }
            DiscoveryEvent::Gone(id) => format!("gone {}", &id[..1]),
            DiscoveryEvent::Deselected(id) => format!("deselected {}", &id[..1]),
            DiscoveryEvent::Missed(missed) => {
                let may = if missed.ran_before { "may have " } else { "" };
                format!("{may}missed {}", missed.facts.name)
            }
            DiscoveryEvent::Listed => "listed".to_owned(),
        });
        words.collect()
    }
}

fn found(id: &str) -> HttpAnswer {
    named(id, "web")
}

fn named(id: &str, name: &str) -> HttpAnswer {
    let body = serde_json::json!({"Id": id, "Name": format!("/{name}"), "State": {"Running": true}});
    Ok((200, body.to_string().into_bytes()))
}

fn not_started(id: &str) -> HttpAnswer {
    let state = serde_json::json!({"Running": false, "FinishedAt": "0001-01-01T00:00:00Z"});
    let body = serde_json::json!({"Id": id, "Name": "/early", "State": state});
    Ok((200, body.to_string().into_bytes()))
}

fn no_such(_: &str) -> HttpAnswer {
    Ok((404, NO_SUCH.to_vec()))
}

/// A scene with one container that is captured.
fn with_one() -> Scene {
    let mut scene = Scene::new();
    scene.answer(&[A], found);
    assert_eq!(scene.told(), ["listed", "container a was there"]);
    scene
}

#[test]
fn an_empty_list_removes_nothing() {
    let mut scene = with_one();
    for _ in 0..10 {
        scene.pass(30_000);
        scene.answer(&[], found);
        assert_eq!(scene.told(), ["listed", "container a was there"], "it is asked after, and is there");
    }
    assert_eq!(scene.discovery.running(), 1);
}

#[test]
fn a_container_is_gone_when_two_inspections_do_not_find_it() {
    let mut scene = with_one();
    scene.pass(30_000);
    scene.answer(&[], no_such);
    assert_eq!(scene.told(), ["listed"], "one is not enough");
    scene.pass(500);
    scene.answer(&[], no_such);
    assert_eq!(scene.told(), [""; 0]);
    scene.pass(500);
    scene.answer(&[], no_such);
    assert_eq!((scene.told(), scene.discovery.running()), (vec!["gone a".to_owned()], 0));
}

/// A 404 for the page is no removal of a container: something else answers in place of the Engine.
#[test]
fn another_404_is_no_removal() {
    let mut scene = with_one();
    for _ in 0..5 {
        scene.pass(30_000);
        scene.answer(&[A], |_| Ok((404, b"<html>not found</html>".to_vec())));
        scene.hear("rename", A);
        scene.answer(&[A], |_| Ok((404, br#"{"message":"page not found"}"#.to_vec())));
        assert!(scene.told().iter().all(|told| told == "listed"));
    }
    assert!(scene.discovery.trouble().is_some());
    scene.pass(30_000);
    scene.answer(&[A], found);
    assert_eq!(scene.told(), ["listed", "container a was there"]);
}

#[test]
fn one_that_no_list_names_and_nobody_can_inspect_is_gone_after_two_lists() {
    let mut scene = with_one();
    let refused = |_: &str| Ok((500, Vec::new()));
    scene.pass(30_000);
    scene.answer(&[], refused);
    assert_eq!(scene.told(), ["listed"]);
    for _ in 0..40 {
        scene.pass(1_000);
        scene.answer(&[], refused);
    }
    assert!(scene.told().contains(&"gone a".to_owned()));
}

#[test]
fn a_removal_is_an_event() {
    let mut scene = with_one();
    // An inspection is under way; its answer is from before.
    scene.hear("die", A);
    scene.hear("destroy", A);
    scene.answer(&[], found);
    assert_eq!((scene.told(), scene.discovery.running()), (vec!["gone a".to_owned()], 0));
}

/// A position kept from an earlier run is dropped only with its container.
#[test]
fn a_kept_position_is_asked_after() {
    let mut scene = with_one();
    scene.discovery.doubt([B.to_owned()].into_iter(), &mut scene.bench.cx());
    scene.answer(&[], no_such);
    scene.pass(1_000);
    scene.answer(&[], no_such);
    assert_eq!(scene.told(), ["gone b"]);
}

#[test]
fn one_that_lived_too_briefly_is_named() {
    let mut scene = with_one();
    ["create", "start", "die"].into_iter().for_each(|action| scene.hear(action, B));
    scene.hear("destroy", B);
    assert_eq!(scene.told(), [""; 0], "its inspection is under way");
    scene.answer(&[A], no_such);
    assert_eq!(scene.told(), ["missed short", "gone b"]);
    // Its inspection came in time: its stream reads what it printed.
    ["create", "start", "destroy"].into_iter().for_each(|action| scene.hear(action, B));
    scene.answer(&[A], found);
    assert_eq!(scene.told(), ["container b", "gone b"]);
    // It was created and never ran.
    scene.hear("create", B);
    scene.hear("destroy", B);
    scene.answer(&[A], no_such);
    assert_eq!(scene.told(), ["gone b"]);
}

/// It was last seen before it ran.
#[test]
fn one_that_was_only_looked_at_before_it_ran_was_missed() {
    let mut scene = with_one();
    scene.hear("create", B);
    scene.answer(&[A], not_started);
    assert_eq!(scene.told(), ["container b"]);
    ["start", "die"].into_iter().for_each(|action| scene.hear(action, B));
    scene.hear("destroy", B);
    scene.answer(&[A], no_such);
    assert_eq!(scene.told(), ["missed short", "gone b"]);
    // The answer comes late.
    ["create", "start", "die", "destroy"].into_iter().for_each(|action| scene.hear(action, B));
    scene.answer(&[A], not_started);
    assert_eq!(scene.told(), ["container b", "missed short", "gone b"]);
    // It never runs.
    scene.hear("create", B);
    scene.answer(&[A], not_started);
    scene.hear("destroy", B);
    assert_eq!(scene.told(), ["container b", "gone b"]);
}

/// Thousands wait for inspections after a start; one that is removed meanwhile must be reported.
#[test]
fn one_that_was_listed_and_removed_before_it_could_be_inspected_is_named() {
    let mut scene = Scene::new();
    scene.bench.settings_mut().container_monitor.max_concurrent = 1;
    let asked = scene.bench.actions().into_iter().find_map(|action| match action {
        Action::Get { request, path } if path == docker::LIST => Some(request),
        _ => None,
    });
    let asked = asked.expect("the list is asked for");
    let rows = [A, B].map(|id| serde_json::json!({"Id": id, "State": "exited", "Names": ["/old"]}));
    let body = serde_json::Value::from(rows.to_vec()).to_string().into_bytes();
    scene.discovery.on_answer(asked, Ok((200, body)), &mut scene.bench.cx(), &mut scene.told);
    scene.hear("destroy", B);
    scene.answer(&[A], found);
    assert_eq!(scene.told(), ["listed", "may have missed old", "gone b", "container a was there"]);
    scene.hear("destroy", A);
    assert_eq!(scene.told(), ["gone a"], "it was looked at");
}

/// A container that started before the first list came is still new.
#[test]
fn what_events_named_before_the_first_list_is_new() {
    let mut scene = Scene::new();
    scene.hear("start", B);
    scene.answer(&[A, B], found);
    let mut told = scene.told();
    told.sort();
    told.dedup();
    assert_eq!(told, ["container a was there", "container b", "listed"]);
}

#[test]
fn renamed_out_of_the_list_it_is_left_and_not_gone() {
    let mut scene = with_one();
    scene.bench.settings_mut().container_monitor.select.include_names =
        vec![glob::Pattern::new("web*").expect("a pattern")];
    scene.hear("rename", A);
    scene.answer(&[A], |id| named(id, "other"));
    assert_eq!((scene.told(), scene.discovery.running()), (vec!["deselected a".to_owned()], 0));
    scene.hear("rename", A);
    scene.answer(&[A], found);
    assert_eq!(scene.told(), ["container a was there"]);
}

#[test]
fn the_agents_own_container_is_left_out() {
    let mounts =
        format!("620 600 8:1 /var/lib/docker/containers/{A}/hostname /etc/hostname rw - ext4 /dev/sda1 rw\n");
    let mut scene = Scene::new();
    scene.discovery.leave_out(OwnContainer::new(&mounts, "x"));
    scene.answer(&[A, B], found);
    assert_eq!(scene.told(), ["listed", "container b was there"]);
    scene.bench.settings_mut().container_monitor.include_self = true;
    scene.hear("restart", A);
    scene.answer(&[A, B], found);
    assert_eq!(scene.told(), ["container a was there"]);
}

impl Scene {
    /// What was asked since the last call and is not answered.
    fn asked(&mut self) -> Vec<(RequestId, String)> {
        let asked = self.bench.actions().into_iter().filter_map(|action| match action {
            Action::Get { request, path } => Some((request, path)),
            _ => None,
        });
        asked.collect()
    }

    /// So many seconds in which nobody answers. Returns after how many it was called silent, and what was asked.
    fn silence(&mut self, seconds: u64) -> (Option<u64>, Vec<(RequestId, String)>) {
        let (mut named, mut asked) = (None, Vec::new());
        for second in 1..=seconds {
            self.pass(1_000);
            asked.extend(self.asked());
            if named.is_none() && self.discovery.silence().is_some() {
                named = Some(second);
            }
        }
        (named, asked)
    }

    fn reply(&mut self, request: RequestId, result: HttpAnswer) {
        self.discovery.on_answer(request, result, &mut self.bench.cx(), &mut self.told);
    }
}

fn of_path<'a>(asked: &'a [(RequestId, String)], path: &str) -> Vec<&'a RequestId> {
    asked.iter().filter(|(_, asked)| asked == path).map(|(request, _)| request).collect()
}

/// With the default times, a frozen dockerd was named after 55 s: a read had to time out before it was asked, and the question
/// had to time out as well.
#[test]
fn a_frozen_engine_is_named_soon_and_its_first_answer_ends_that() {
    let mut scene = with_one();
    let (named, asked) = scene.silence(40);
    assert_eq!(named, Some(20));
    let pings = of_path(&asked, docker::PING);
    assert_eq!(pings.len(), 1, "one at a time");
    let trouble = scene.discovery.trouble().expect("trouble");
    assert_eq!(trouble.text, "no answer to GET /_ping within 10 s");
    assert!(scene.bench.cx().pool.engine_is_away);
    // The shell's time-out reports the same silence later. The first report stays, since health counts from it.
    let error = RequestError::NoAnswer { path: docker::PING.to_owned(), timeout_s: 30 };
    scene.reply(*pings[0], Err(error));
    assert_eq!(scene.discovery.trouble(), Some(trouble));
    let (_, asked) = scene.silence(2);
    scene.reply(*of_path(&asked, docker::PING)[0], Ok((200, b"OK".to_vec())));
    assert_eq!((scene.discovery.trouble(), scene.bench.cx().pool.engine_is_away), (None, false));
    assert_eq!(of_path(&scene.asked(), docker::LIST).len(), 1, "what happened meanwhile is looked up");
}

/// A list may take a minute on a busy host.
#[test]
fn a_slow_engine_that_answers_pings_is_not_silent() {
    let mut scene = with_one();
    for _ in 0..12 {
        let (named, asked) = scene.silence(19);
        assert_eq!(named, None);
        let pings = of_path(&asked, docker::PING);
        assert_eq!(pings.len(), 1);
        scene.reply(*pings[0], Ok((200, b"OK".to_vec())));
    }
    // Nor is one that reports events.
    for _ in 0..12 {
        assert_eq!(scene.silence(9).0, None);
        scene.hear("pause", A);
    }
}

/// Nobody is asked who was heard just now: a ping costs a connection.
#[test]
fn an_engine_that_is_heard_is_not_asked() {
    let mut scene = with_one();
    for _ in 0..20 {
        let (_, asked) = scene.silence(9);
        assert_eq!(of_path(&asked, docker::PING).len(), 0);
        scene.hear("pause", A);
        scene.answer(&[A], found);
    }
}

/// A start against a frozen dockerd.
#[test]
fn an_engine_that_never_answered_is_named_as_soon() {
    let mut bench = Bench::new(1);
    let mut discovery = Discovery::new();
    discovery.start(&mut bench.cx());
    let mut scene = Scene { bench, discovery, told: Vec::new() };
    assert_eq!(scene.silence(15).0, Some(10));
    let text = scene.discovery.trouble().expect("trouble").text;
    assert_eq!(text, "no answer to GET /events within 10 s");
    scene.discovery.on_opened(Ok((200, Vec::new())), &mut scene.bench.cx());
    assert_eq!(scene.discovery.trouble(), None);
}

/// The ping of a connection that broke is answered late, when the next connection is long open.
#[test]
fn a_ping_of_another_connection_says_nothing() {
    let mut scene = with_one();
    let (_, asked) = scene.silence(12);
    let ping = *of_path(&asked, docker::PING)[0];
    let broken = BodyOutcome::Broken("reset".to_owned());
    scene.discovery.on_read(broken, Vec::new(), &mut scene.bench.cx(), &mut scene.told);
    scene.discovery.on_closed(&mut scene.bench.cx());
    scene.pass(60_000);
    scene.discovery.on_opened(Ok((200, Vec::new())), &mut scene.bench.cx());
    scene.reply(ping, Err(RequestError::Broken { path: docker::PING.to_owned(), cause: "reset".to_owned() }));
    assert_eq!(scene.discovery.trouble(), None);
}

/// A dockerd that is ending removes its socket, and reports for seconds how its containers end. Each event once made it
/// reachable again, and each question behind it was a warning.
#[test]
fn events_of_an_engine_that_takes_no_questions_do_not_make_it_reachable() {
    let mut scene = with_one();
    let (_, asked) = scene.silence(11);
    let away = || RequestError::Connect {
        socket: "/d.sock".to_owned(),
        cause: "No such file or directory".to_owned(),
        errno: rustix::io::Errno::NOENT.raw_os_error(),
    };
    scene.reply(*of_path(&asked, docker::PING)[0], Err(away()));
    assert!(scene.discovery.trouble().is_some_and(|trouble| trouble.fault == EngineFault::Away));
    scene.hear("die", A);
    assert!(scene.discovery.trouble().is_some());
    assert_eq!(of_path(&scene.asked(), docker::LIST).len(), 0);
    // Of one that was silent an event is an answer.
    let mut scene = with_one();
    scene.silence(21);
    assert!(scene.discovery.silence().is_some());
    scene.hear("pause", A);
    assert_eq!(scene.discovery.trouble(), None);
}

const NO_EVENTS: &[u8] = br#"{"message":"authorization denied"}"#;

/// A proxy before the Engine allows lists and no events. Nothing was captured then.
#[test]
fn lists_find_containers_while_events_are_refused() {
    for status in [401, 403, 404, 405, 501] {
        let mut bench = Bench::new(1);
        let mut discovery = Discovery::new();
        discovery.start(&mut bench.cx());
        discovery.on_opened(Ok((status, NO_EVENTS.to_vec())), &mut bench.cx());
        let mut scene = Scene { bench, discovery, told: Vec::new() };
        scene.answer(&[A], found);
        assert_eq!(scene.told(), ["listed", "container a was there"], "{status}");
        let trouble = scene.discovery.trouble().expect("events are refused");
        assert_eq!(trouble.fault, EngineFault::EventsRefused);
        assert!(trouble.text.contains("authorization denied"), "{}", trouble.text);
        assert!(scene.discovery.silence().is_none() && !scene.bench.cx().pool.engine_is_away);
        // One that starts, and one that is removed.
        scene.pass(5_000);
        scene.answer(&[A, B], found);
        let told = scene.told();
        assert!(told.contains(&"container b".to_owned()), "{told:?}");
        for _ in 0..8 {
            scene.pass(1_000);
            scene.answer(&[B], |id| if id == A { no_such(id) } else { found(id) });
        }
        let told = scene.told();
        assert!(told.contains(&"gone a".to_owned()), "{told:?}");
        // Once events are allowed, all is as usual.
        scene.discovery.on_opened(Ok((200, Vec::new())), &mut scene.bench.cx());
        scene.answer(&[B], found);
        assert_eq!(scene.discovery.trouble(), None);
        scene.asked();
        scene.pass(5_000);
        assert_eq!(of_path(&scene.asked(), docker::LIST).len(), 0, "events tell of changes again");
    }
}

/// What it was told last is no news while it can't be asked, and no list is requested then.
#[test]
fn an_engine_that_is_away_is_not_listed_though_it_refused_events_before() {
    let mut scene = with_one();
    let broken = BodyOutcome::Broken("reset".to_owned());
    scene.discovery.on_read(broken, Vec::new(), &mut scene.bench.cx(), &mut scene.told);
    scene.discovery.on_closed(&mut scene.bench.cx());
    scene.pass(1_000);
    scene.discovery.on_opened(Ok((403, NO_EVENTS.to_vec())), &mut scene.bench.cx());
    scene.answer(&[A], found);
    assert_eq!(scene.told(), ["listed", "container a was there"], "it may have ended meanwhile");
    scene.pass(2_000);
    scene.asked();
    let away = RequestError::Connect {
        socket: "/d.sock".to_owned(),
        cause: "No such file or directory".to_owned(),
        errno: rustix::io::Errno::NOENT.raw_os_error(),
    };
    scene.discovery.on_opened(Err(away), &mut scene.bench.cx());
    assert!(scene.discovery.trouble().is_some_and(|trouble| trouble.fault == EngineFault::Away));
    for _ in 0..20 {
        scene.pass(1_000);
    }
    assert_eq!(of_path(&scene.asked(), docker::LIST).len(), 0);
}
