//! Jails that are made before they are asked for.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Operation, Result, errno};
use crate::jail::bulk::teardown_all;
use crate::jail::create::Created;
use crate::jail::open::Jail;
use crate::jail::teardown::{Report, TeardownOptions};
use crate::spec::{JailSpec, Netns, Nonce};
use crate::state::Store;

/// Created jails of one specification, kept warm: whoever takes one has only to place into it and to launch it.
///
/// Their ids are that of the specification with a random word behind it, and so are the names of network
/// namespaces that are made for them: a jail keeps its name for life, since its paths have it in them.
///
/// What was taken is made up for by a thread of the pool's own, which lets the launch of what was taken go first. A pooled jail is a created jail like any other,
/// with its receipt: if this process is killed, `gc` removes it. A pool that is dropped removes what is in it.
///
/// ```no_run
/// use stockade::spec::JailSpec;
/// use stockade::{JailPool, Store, Streams};
///
/// # fn main() -> stockade::Result<()> {
/// let spec = JailSpec::builder("web", "/usr/local/bin/firecracker").new_pid_ns(true).build()?;
/// let pool = JailPool::new(&Store::from_environment()?, &spec, 4)?;
/// let mut created = pool.take()?;
/// created.place("/images/vmlinux")?;
/// let running = created.launch(Streams::default())?;
/// println!("{} runs as {}", running.receipt().id, running.pid());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct JailPool {
    shared: Arc<Shared>,
    filler: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    spec: JailSpec,
    size: usize,
    pool: Mutex<Pool>,
    /// Reported when a jail comes or goes, or the pool closes.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Pool {
    jails: VecDeque<Created>,
    /// How many jails were taken and not launched yet.
    starting: usize,
    /// Until when these go first.
    patient_until: Option<Instant>,
    /// Why the last jail could not be made; none is tried until somebody wants one again.
    failed: Option<Error>,
    closed: bool,
}

impl JailPool {
    /// A pool that keeps `size` jails of this specification, and begins to make them.
    ///
    /// # Errors
    /// [`SpecError::IdLength`](crate::spec::SpecError::IdLength) for an id that leaves no room for the word behind
    /// it, or what the kernel says of starting a thread.
    pub fn new(store: &Store, spec: &JailSpec, size: usize) -> Result<Self> {
        member(spec)?;
        let (store, spec) = (store.clone(), spec.clone());
        let shared = Arc::new(Shared { store, spec, size, pool: Mutex::default(), changed: Condvar::new() });
        let filling = Arc::clone(&shared);
        let filler = thread::Builder::new().name("jail-pool".into()).spawn(move || filling.fill());
        let filler = filler.map_err(|e| errno(&e)).context(Operation::Spawn, "the thread of a pool")?;
        Ok(Self { shared, filler: Some(filler) })
    }

    /// Takes a jail. Where none is warm one is made here and now.
    ///
    /// # Errors
    /// What was refused at which step of making it.
    pub fn take(&self) -> Result<Created> {
        let warm = {
            let mut pool = self.shared.lock();
            pool.failed = None;
            pool.starting += 1;
            pool.patient_until.get_or_insert_with(|| Instant::now() + REFILL_DELAY);
            pool.jails.pop_front()
        };
        let taken = PoolGuard(Arc::clone(&self.shared));
        self.shared.changed.notify_all();
        let mut created = warm.map_or_else(|| self.shared.create(), Ok)?;
        created.set_pool_guard(taken);
        Ok(created)
    }

    /// How many jails are warm.
    pub fn warm(&self) -> usize {
        self.shared.lock().jails.len()
    }

    /// Waits until as many jails are warm as the pool keeps.
    ///
    /// # Errors
    /// Why one could not be made. Another is tried when somebody takes one, or waits again.
    pub fn wait_until_warm(&self) -> Result<()> {
        let mut pool = self.shared.lock();
        pool.failed = None;
        self.shared.changed.notify_all();
        while pool.jails.len() < self.shared.size {
            if let Some(error) = pool.failed.take() {
                return Err(error);
            }
            pool = self.shared.wait(pool);
        }
        Ok(())
    }

    /// Removes the jails that are still in the pool, and returns what became of each.
    pub fn close(mut self) -> Vec<Result<Report>> {
        self.shut()
    }

    fn shut(&mut self) -> Vec<Result<Report>> {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        if let Some(filler) = self.filler.take() {
            // It makes one jail more at most; if it panicked its jail was dropped, and with that removed.
            let _ = filler.join();
        }
        let jails = std::mem::take(&mut self.shared.lock().jails);
        teardown_all(jails.into_iter().map(Jail::Created).collect(), TeardownOptions::default())
    }
}

impl Drop for JailPool {
    fn drop(&mut self) {
        // What cannot be removed now stays on its receipt.
        self.shut();
    }
}

/// How long a new jail is put off at most while one that was taken is about to be launched.
const REFILL_DELAY: Duration = Duration::from_millis(20);

impl Pool {
    /// How long to go on leaving the processors to those who start; `None` if that is over.
    fn patience(&mut self) -> Option<Duration> {
        let left = self.patient_until.filter(|_| self.starting > 0)?.checked_duration_since(Instant::now());
        if left.is_none() {
            self.patient_until = None;
        }
        left
    }
}

/// Lets the pool make up for a jail that was taken once it is launched, or given up.
#[derive(Debug)]
pub(crate) struct PoolGuard(Arc<Shared>);

impl Drop for PoolGuard {
    fn drop(&mut self) {
        let mut pool = self.0.lock();
        pool.starting -= 1;
        if pool.starting == 0 {
            pool.patient_until = None;
        }
        drop(pool);
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'g>(&self, pool: MutexGuard<'g, Pool>) -> MutexGuard<'g, Pool> {
        self.changed.wait(pool).unwrap_or_else(PoisonError::into_inner)
    }

    fn create(&self) -> Result<Created> {
        self.store.create(&member(&self.spec)?)
    }

    /// Makes one jail after the other while the pool lacks some, until it closes.
    fn fill(&self) {
        let mut pool = self.lock();
        while !pool.closed {
            if pool.jails.len() >= self.size || pool.failed.is_some() {
                pool = self.wait(pool);
                continue;
            }
            if let Some(left) = pool.patience() {
                let waited = self.changed.wait_timeout(pool, left);
                pool = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            drop(pool);
            let made = self.create();
            pool = self.lock();
            match made {
                Ok(jail) => pool.jails.push_back(jail),
                Err(error) => pool.failed = Some(error),
            }
            self.changed.notify_all();
        }
    }
}

/// The specification of one jail of the pool, under a name of its own.
fn member(spec: &JailSpec) -> Result<JailSpec> {
    let nonce = Nonce::new();
    let word = &nonce.as_str()[..8];
    let mut member = spec.clone();
    member.id = format!("{}-{word}", spec.id).parse()?;
    if let Netns::Make(name) = &spec.netns {
        member.netns = Netns::Make(format!("{name}-{word}").parse()?);
    }
    Ok(member)
}
