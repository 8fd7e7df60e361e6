//! A process that measures, in a mount namespace of its own: asked by lines on its stdin, it answers with samples.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Barrier;
use std::time::Duration;

use crate::child::{began, now, pipe};
use crate::ground::Ground;
use crate::series::Place;
use crate::ways::{Ready, ready};
use crate::{Done, crowd, lives, text};

/// A worker, as the process that asks sees it.
pub(crate) struct Worker {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts one whose mount namespace has so many mounts more than the host's, with or without a skeleton.
    fn start(mounts: u32, skeleton: bool) -> Done<Self> {
        let own = std::env::current_exe().map_err(text)?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--"]).arg(own);
        command.args(["worker", &mounts.to_string(), if skeleton { "skeleton" } else { "classic" }]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("start a worker by unshare: {e}"))?;
        let (Some(asks), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("a worker has no pipes".into());
        };
        Ok(Self { child, asks, answers: BufReader::new(answers) })
    }

    /// Asks for one series of samples.
    pub(crate) fn ask(&mut self, question: &str) -> Done<Vec<f64>> {
        writeln!(self.asks, "{question}").map_err(|e| format!("{question}: {e}"))?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer).map_err(text)?;
        let samples: Result<Vec<f64>, String> =
            serde_json::from_str(&answer).map_err(|e| format!("{question}: {answer:?}: {e}"))?;
        samples.map_err(|problem| format!("{question}: {problem}"))
    }

    /// Ends it.
    fn end(self) -> Done {
        let Self { mut child, asks, answers } = self;
        drop((asks, answers));
        let status = child.wait().map_err(text)?;
        if status.success() { Ok(()) } else { Err(format!("a worker ended with {status}")) }
    }
}

/// The workers that were asked for so far, one for each place.
#[derive(Default)]
pub(crate) struct Workers(Vec<(Place, Worker)>);

impl Workers {
    /// The worker at this place; it is started if it is the first that is asked for there.
    pub(crate) fn at(&mut self, place: Place) -> Done<&mut Worker> {
        if self.0.iter().all(|(at, _)| *at != place) {
            self.0.push((place, Worker::start(place.mounts, place.skeleton)?));
        }
        let worker = self.0.iter_mut().find(|(at, _)| *at == place);
        worker.map(|(_, worker)| worker).ok_or_else(|| "no worker".into())
    }

    /// Ends them all.
    pub(crate) fn end(self) -> Done {
        self.0.into_iter().try_for_each(|(_, worker)| worker.end())
    }
}

/// As long as a host does nothing between two starts: the kernel's lock of thread groups is quick while it is warm.
const IDLE: Duration = Duration::from_millis(40);

/// The worker's own side.
pub(crate) fn work(mounts: u32, skeleton: bool) -> Done {
    // Before most of what else the machine does, which would be measured too; all ways inherit it.
    rustix::process::setpriority_process(None, -10).map_err(|e| format!("raise the priority: {e}"))?;
    let ground = Ground::lay_out(mounts, skeleton)?;
    for question in std::io::stdin().lines() {
        let answer = answer(&ground, &question.map_err(text)?);
        println!("{}", serde_json::to_string(&answer).map_err(text)?);
    }
    Ok(())
}

fn answer(ground: &Ground, question: &str) -> Done<Vec<f64>> {
    let words: Vec<&str> = question.split(' ').collect();
    let number = |word: &str| word.parse().map_err(|e| format!("{word}: {e}"));
    match words[..] {
        ["start", way, at_once] => starts(ground, way, number(at_once)?, Duration::ZERO),
        ["start-idle", way] => starts(ground, way, 1, IDLE),
        ["life", way] => lives::live(ground, way).map(|took| vec![took]),
        ["throughput", way, many] => lives::throughput(ground, way, number(many)?).map(|rate| vec![rate]),
        ["teardown", way, many] => crowd::teardown(ground, way, number(many)?).map(|took| vec![took]),
        ["crowd", way, many] => crowd::crowd(ground, way, number(many)?),
        ["monitor"] => crowd::monitor(ground),
        ["pool", many] => crowd::pool(ground, number(many)?),
        _ => Err(format!("not understood: {question}")),
    }
}

/// From the word to start to the first instruction of each VMM, in microseconds.
fn starts(ground: &Ground, way: &str, at_once: u32, after: Duration) -> Done<Vec<f64>> {
    let all = (0..at_once).map(|_| ready(ground, way)).collect::<Done<Vec<_>>>()?;
    std::thread::sleep(after);
    start_all(all)
}

/// Starts what is ready, all at the same moment.
pub(crate) fn start_all(all: Vec<Ready>) -> Done<Vec<f64>> {
    let gate = Barrier::new(all.len() + 1);
    let one = |ready: Ready| {
        let (tells, output) = pipe()?;
        gate.wait();
        let started = ready(output)?;
        let began = began(tells, true)?;
        started()?;
        Ok(began)
    };
    if all.len() == 1 {
        let ready = all.into_iter().next().ok_or("none is ready")?;
        let (tells, output) = pipe()?;
        let begin = now();
        let started = ready(output)?;
        let took = began(tells, true)? - begin;
        return started().map(|()| vec![took / 1000.0]);
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = all.into_iter().map(|ready| scope.spawn(|| one(ready))).collect();
        let begin = now();
        gate.wait();
        let began =
            threads.into_iter().map(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())?);
        began.map(|began: Done<f64>| began.map(|began| (began - begin) / 1000.0)).collect()
    })
}
