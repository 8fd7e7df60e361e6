//! Workers: processes that measure, each in its own mount namespace. They read requests from stdin, a line each, and
//! print samples.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Barrier;
use std::time::Duration;

use crate::child::{began, now, pipe};
use crate::series::HostKind;
use crate::setup::Setup;
use crate::ways::{Ready, ready};
use crate::{Done, crowd, lives, text};

/// The requesting side of a worker.
pub(crate) struct Worker {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts a worker on this kind of host.
    fn start(host: HostKind) -> Done<Self> {
        let own = std::env::current_exe().map_err(text)?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--"]).arg(own);
        command.args([
            "worker",
            &host.mounts.to_string(),
            if host.has_template { "template" } else { "classic" },
        ]);
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

    /// Requests samples.
    pub(crate) fn ask(&mut self, question: &str) -> Done<Vec<f64>> {
        writeln!(self.asks, "{question}").map_err(|e| format!("{question}: {e}"))?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer).map_err(text)?;
        let samples: Result<Vec<f64>, String> =
            serde_json::from_str(&answer).map_err(|e| format!("{question}: {answer:?}: {e}"))?;
        samples.map_err(|problem| format!("{question}: {problem}"))
    }

    /// Closes the pipes, at which the worker exits.
    fn end(self) -> Done {
        let Self { mut child, asks, answers } = self;
        drop((asks, answers));
        let status = child.wait().map_err(text)?;
        if status.success() { Ok(()) } else { Err(format!("a worker exited with {status}")) }
    }
}

/// The started workers, one for each kind of host.
#[derive(Default)]
pub(crate) struct Workers(Vec<(HostKind, Worker)>);

impl Workers {
    /// Returns the worker for this kind of host, and starts it if necessary.
    pub(crate) fn at(&mut self, host: HostKind) -> Done<&mut Worker> {
        if self.0.iter().all(|(known, _)| *known != host) {
            self.0.push((host, Worker::start(host)?));
        }
        let worker = self.0.iter_mut().find(|(known, _)| *known == host);
        worker.map(|(_, worker)| worker).ok_or_else(|| "no worker".into())
    }

    /// Ends all workers.
    pub(crate) fn end(self) -> Done {
        self.0.into_iter().try_for_each(|(_, worker)| worker.end())
    }
}

/// The pause before a start on an idle host: shortly after another use, the kernel's lock of thread groups is faster.
const IDLE: Duration = Duration::from_millis(40);

/// Runs in the worker.
pub(crate) fn work(mounts: u32, has_template: bool) -> Done {
    // Above most other load, which would be measured too; all ways inherit the priority.
    rustix::process::setpriority_process(None, -10).map_err(|e| format!("raise the priority: {e}"))?;
    let setup = Setup::create(mounts, has_template)?;
    for question in std::io::stdin().lines() {
        let answer = answer(&setup, &question.map_err(text)?);
        println!("{}", serde_json::to_string(&answer).map_err(text)?);
    }
    Ok(())
}

fn answer(setup: &Setup, question: &str) -> Done<Vec<f64>> {
    let parts: Vec<&str> = question.split(' ').collect();
    let number = |text: &str| text.parse().map_err(|e| format!("{text}: {e}"));
    match parts[..] {
        ["start", way, at_once] => starts(setup, way, number(at_once)?, Duration::ZERO),
        ["start-idle", way] => starts(setup, way, 1, IDLE),
        ["life", way] => lives::live(setup, way).map(|took| vec![took]),
        ["throughput", way, many] => lives::throughput(setup, way, number(many)?).map(|rate| vec![rate]),
        ["teardown", way, many] => crowd::teardown(setup, way, number(many)?).map(|took| vec![took]),
        ["crowd", way, many] => crowd::crowd(setup, way, number(many)?),
        ["monitor"] => crowd::monitor(setup),
        ["pool", many] => crowd::pool(setup, number(many)?),
        _ => Err(format!("unknown request '{question}'")),
    }
}

/// The times from the start call to the first instruction of each VMM, in microseconds.
fn starts(setup: &Setup, way: &str, at_once: u32, after: Duration) -> Done<Vec<f64>> {
    let all = (0..at_once).map(|_| ready(setup, way)).collect::<Done<Vec<_>>>()?;
    std::thread::sleep(after);
    start_all(all)
}

/// Starts all prepared jails at the same moment.
pub(crate) fn start_all(all: Vec<Ready>) -> Done<Vec<f64>> {
    let gate = Barrier::new(all.len() + 1);
    let one = |ready: Ready| {
        let (input, output) = pipe()?;
        gate.wait();
        let started = ready(output)?;
        let began = began(input, true)?;
        started()?;
        Ok(began)
    };
    if all.len() == 1 {
        let ready = all.into_iter().next().ok_or("nothing to start")?;
        let (input, output) = pipe()?;
        let begin = now();
        let started = ready(output)?;
        let took = began(input, true)? - begin;
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
