//! Pools of jails that are created in advance.

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

/// A pool of created jails of one specification. A jail that is taken from it only needs placements and a launch.
///
/// The ids are the id of the specification with a part of a nonce appended, and so are the names of network
/// namespaces that are created for them. A jail keeps its id for life, because its paths contain it.
///
/// A thread of the pool replaces a taken jail after its launch, or after a short delay. A pooled jail is a
/// created jail like any other, with a receipt: if this process is killed, `gc` removes it. Dropping the pool
/// removes its jails.
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
    /// Notified when a jail is added or taken, or the pool closes.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Pool {
    jails: VecDeque<Created>,
    /// The number of taken jails that were not launched yet.
    starting: usize,
    /// The time until which their launch has priority.
    launches_first_until: Option<Instant>,
    /// The error of the last creation. The next is tried when a caller takes a jail or waits for one.
    failed: Option<Error>,
    closed: bool,
}

impl JailPool {
    /// Creates a pool that keeps `size` jails of this specification, and begins to create them.
    ///
    /// # Errors
    /// Returns [`SpecError::IdLength`](crate::spec::SpecError::IdLength) if the id is too long for the
    /// appended part, or an error if the thread cannot be started.
    pub fn new(store: &Store, spec: &JailSpec, size: usize) -> Result<Self> {
        member(spec)?;
        let (store, spec) = (store.clone(), spec.clone());
        let shared = Arc::new(Shared { store, spec, size, pool: Mutex::default(), changed: Condvar::new() });
        let filling = Arc::clone(&shared);
        let filler = thread::Builder::new().name("jail-pool".into()).spawn(move || filling.fill());
        let filler = filler.map_err(|e| errno(&e)).context(Operation::Spawn, "the thread of a pool")?;
        Ok(Self { shared, filler: Some(filler) })
    }

    /// Takes a jail. If the pool has none, this creates one.
    ///
    /// # Errors
    /// Returns the errors of [`Store::create`] if the jail has to be created.
    pub fn take(&self) -> Result<Created> {
        let warm = {
            let mut pool = self.shared.lock();
            pool.failed = None;
            pool.starting += 1;
            pool.launches_first_until.get_or_insert_with(|| Instant::now() + REFILL_DELAY);
            pool.jails.pop_front()
        };
        let guard = PoolGuard(Arc::clone(&self.shared));
        self.shared.changed.notify_all();
        let mut created = warm.map_or_else(|| self.shared.create(), Ok)?;
        created.set_pool_guard(guard);
        Ok(created)
    }

    /// The number of jails in the pool.
    pub fn warm(&self) -> usize {
        self.shared.lock().jails.len()
    }

    /// Waits until the pool is full.
    ///
    /// # Errors
    /// Returns the error of a jail that cannot be created. The pool tries again at the next call of this
    /// function or of [`JailPool::take`].
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

    /// Removes the jails in the pool, and returns their reports.
    pub fn close(mut self) -> Vec<Result<Report>> {
        self.shut()
    }

    fn shut(&mut self) -> Vec<Result<Report>> {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        if let Some(filler) = self.filler.take() {
            // It creates at most one more jail. If it panicked, its jail was dropped and so removed.
            let _ = filler.join();
        }
        let jails = std::mem::take(&mut self.shared.lock().jails);
        teardown_all(jails.into_iter().map(Jail::Created).collect(), TeardownOptions::default())
    }
}

impl Drop for JailPool {
    fn drop(&mut self) {
        // Steps that cannot be undone now stay on the receipts.
        self.shut();
    }
}

/// The longest delay of a new jail while a taken one is about to be launched.
const REFILL_DELAY: Duration = Duration::from_millis(20);

impl Pool {
    /// The remaining time in which launches have priority; `None` after it.
    fn launch_time_left(&mut self) -> Option<Duration> {
        let remaining =
            self.launches_first_until.filter(|_| self.starting > 0)?.checked_duration_since(Instant::now());
        if remaining.is_none() {
            self.launches_first_until = None;
        }
        remaining
    }
}

/// A taken jail that is not launched yet. Dropping the guard lets the pool replace the jail.
#[derive(Debug)]
pub(crate) struct PoolGuard(Arc<Shared>);

impl Drop for PoolGuard {
    fn drop(&mut self) {
        let mut pool = self.0.lock();
        pool.starting -= 1;
        if pool.starting == 0 {
            pool.launches_first_until = None;
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

    /// Creates one jail after another while the pool is not full, until it closes.
    fn fill(&self) {
        let mut pool = self.lock();
        while !pool.closed {
            if pool.jails.len() >= self.size || pool.failed.is_some() {
                pool = self.wait(pool);
                continue;
            }
            if let Some(remaining) = pool.launch_time_left() {
                let waited = self.changed.wait_timeout(pool, remaining);
                pool = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            drop(pool);
            let created = self.create();
            pool = self.lock();
            match created {
                Ok(jail) => pool.jails.push_back(jail),
                Err(error) => pool.failed = Some(error),
            }
            self.changed.notify_all();
        }
    }
}

/// The specification of one jail of the pool, with an id of its own.
fn member(spec: &JailSpec) -> Result<JailSpec> {
    let nonce = Nonce::new();
    let suffix = &nonce.as_str()[..8];
    let mut member = spec.clone();
    member.id = format!("{}-{suffix}", spec.id).parse()?;
    if let Netns::Make(name) = &spec.netns {
        member.netns = Netns::Make(format!("{name}-{suffix}").parse()?);
    }
    Ok(member)
}
