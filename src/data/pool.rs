//! Decode threads: jobs done ahead of need, in the order announced, with a bound on what lies ready. Knows nothing of
//! images; called by [`super::files`].
//!
//! A caller announces what it will ask for, then asks. What it asks for and nobody has begun goes in front of everything,
//! so that an announcement that was wrong costs time and never blocks: the bound holds for work ahead only.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::DataError;

/// What a job gives.
pub type Product = Result<Arc<[u8]>, DataError>;

/// A job and the number of times its product was announced or asked for.
struct Slot {
    uses: usize,
    product: Option<Product>,
}

struct State<J> {
    /// Asked for: done first.
    urgent: VecDeque<J>,
    /// Announced and not begun.
    queue: VecDeque<J>,
    /// Begun or done, and not taken.
    slots: HashMap<J, Slot>,
    stop: bool,
}

struct Shared<J> {
    state: Mutex<State<J>>,
    /// There is something to do, or room for it.
    work: Condvar,
    /// Something is done.
    done: Condvar,
    run: Box<dyn Fn(&J) -> Product + Send + Sync>,
    /// What a job that panicked gives.
    crashed: Box<dyn Fn(&J) -> DataError + Send + Sync>,
    /// Most products begun or ready that nobody has asked for.
    ahead: usize,
}

/// Threads that do jobs of kind `J`.
pub struct Pool<J: Send + 'static> {
    shared: Arc<Shared<J>>,
    count: usize,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl<J> Shared<J> {
    fn lock(&self) -> MutexGuard<'_, State<J>> {
        // a panic elsewhere leaves the lists as they were between two statements, which is always whole
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J: Copy + Eq + Hash + Send + 'static> Shared<J> {
    /// What a thread does until the pool goes.
    fn serve(&self) {
        let mut state = self.lock();
        loop {
            if state.stop {
                return;
            }
            let Some(job) = self.next(&mut state) else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            let product = self.product(&job);
            state = self.lock();
            match state.slots.get_mut(&job) {
                Some(slot) if slot.uses > 0 => slot.product = Some(product),
                // announced once, and no more
                _ => {
                    state.slots.remove(&job);
                }
            }
            self.done.notify_all();
        }
    }

    fn next(&self, state: &mut State<J>) -> Option<J> {
        if let Some(job) = state.urgent.pop_front() {
            return Some(job);
        }
        while state.slots.len() < self.ahead {
            let job = state.queue.pop_front()?;
            match state.slots.get_mut(&job) {
                Some(slot) => slot.uses += 1,
                None => {
                    state.slots.insert(job, Slot { uses: 1, product: None });
                    return Some(job);
                }
            }
        }
        None
    }

    /// Runs a job. A decoder that panics on a damaged file (none is known to) must not take the thread along, for then its
    /// caller would wait for ever.
    fn product(&self, job: &J) -> Product {
        catch_unwind(AssertUnwindSafe(|| (self.run)(job))).unwrap_or_else(|_| Err((self.crashed)(job)))
    }
}

impl<J: Copy + Eq + Hash + Send + 'static> Pool<J> {
    /// A pool of `count` threads, which start when they are first needed.
    pub fn new(
        count: usize,
        ahead: usize,
        run: impl Fn(&J) -> Product + Send + Sync + 'static,
        crashed: impl Fn(&J) -> DataError + Send + Sync + 'static,
    ) -> Pool<J> {
        let state = State { urgent: VecDeque::new(), queue: VecDeque::new(), slots: HashMap::new(), stop: false };
        let (work, done) = (Condvar::new(), Condvar::new());
        let shared =
            Shared { state: Mutex::new(state), work, done, run: Box::new(run), crashed: Box::new(crashed), ahead };
        Pool { shared: Arc::new(shared), count, threads: Mutex::new(Vec::new()) }
    }

    /// Number of threads at work; starts them when none is. 0 where the system gives none.
    fn started(&self) -> usize {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if threads.is_empty() {
            for i in 0..self.count {
                let shared = self.shared.clone();
                let builder = std::thread::Builder::new().name(format!("decode {i}"));
                threads.extend(builder.spawn(move || shared.serve()));
            }
        }
        threads.len()
    }

    /// Says which jobs will be asked for, in order; replaces what was announced before.
    pub fn announce(&self, jobs: impl Iterator<Item = J>) {
        if self.started() == 0 {
            return;
        }
        let mut state = self.shared.lock();
        state.queue = jobs.collect();
        let State { urgent, slots, .. } = &mut *state;
        // what is asked for right now stays; what is under way is thrown away when it is done, unless announced again
        slots.retain(|job, slot| {
            let asked = urgent.contains(job);
            if !asked {
                slot.uses = 0;
            }
            asked || slot.product.is_none()
        });
        drop(state);
        self.shared.work.notify_all();
    }

    /// The products of `jobs`, each given to `each` with its position, in order; stops at the first error.
    ///
    /// # Errors
    /// The first job's that fails.
    pub fn take(&self, jobs: &[J], mut each: impl FnMut(usize, &[u8])) -> Result<(), DataError> {
        if self.started() == 0 {
            for (i, job) in jobs.iter().enumerate() {
                each(i, &self.shared.product(job)?);
            }
            return Ok(());
        }
        // not more at once than a bounded memory holds: a caller may ask for a whole data set
        for (start, block) in (0..).step_by(self.shared.ahead.max(1)).zip(jobs.chunks(self.shared.ahead.max(1))) {
            let mut state = self.shared.lock();
            block.iter().for_each(|job| ask(&mut state, job));
            drop(state);
            self.shared.work.notify_all();
            for (i, job) in block.iter().enumerate() {
                let product = self.wait(job)?;
                each(start + i, &product);
            }
        }
        Ok(())
    }

    fn wait(&self, job: &J) -> Product {
        let mut state = self.shared.lock();
        loop {
            match state.slots.get_mut(job) {
                // another caller took the one product of an announcement
                None => {
                    ask(&mut state, job);
                    self.shared.work.notify_all();
                }
                Some(Slot { product: None, uses }) => *uses = (*uses).max(1),
                Some(slot) => {
                    slot.uses = slot.uses.saturating_sub(1);
                    let copy = match &slot.product {
                        Some(Ok(bytes)) if slot.uses > 0 => Some(bytes.clone()),
                        _ => None,
                    };
                    if let Some(bytes) = copy {
                        return Ok(bytes);
                    }
                    let slot = state.slots.remove(job);
                    self.shared.work.notify_all(); // there is room
                    return slot.and_then(|s| s.product).unwrap_or_else(|| Err((self.shared.crashed)(job)));
                }
            }
            state = self.shared.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Puts a job in front of all that is announced, unless it is begun.
fn ask<J: Copy + Eq + Hash>(state: &mut State<J>, job: &J) {
    if state.slots.contains_key(job) {
        return;
    }
    if let Some(at) = state.queue.iter().position(|queued| queued == job) {
        state.queue.remove(at);
    }
    state.slots.insert(*job, Slot { uses: 1, product: None });
    state.urgent.push_back(*job);
}

impl<J: Send + 'static> Drop for Pool<J> {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.work.notify_all();
        let threads = self.threads.get_mut().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            let _ = thread.join(); // a panic in it was a product
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn counting(threads: usize, ahead: usize) -> (Pool<u32>, Arc<AtomicUsize>) {
        let runs = Arc::new(AtomicUsize::new(0));
        let counter = runs.clone();
        let run = move |job: &u32| {
            counter.fetch_add(1, Ordering::SeqCst);
            match job {
                13 => panic!("planned"),
                14 => Err(DataError::Index { index: 14, len: 0 }),
                job => Ok(job.to_le_bytes().into()),
            }
        };
        let pool = Pool::new(threads, ahead, run, |&job| DataError::Index { index: job, len: 13 });
        (pool, runs)
    }

    fn taken(pool: &Pool<u32>, jobs: &[u32]) -> Result<Vec<u32>, DataError> {
        let mut out = vec![0; jobs.len()];
        pool.take(jobs, |i, bytes| out[i] = u32::from_le_bytes(bytes.try_into().unwrap()))?;
        Ok(out)
    }

    #[test]
    fn products_come_in_the_order_asked_for_whatever_was_announced() {
        for (threads, ahead) in [(1, 1), (3, 2), (4, 100), (0, 1)] {
            let (pool, _) = counting(threads, ahead);
            let all: Vec<u32> = (100..160).collect();
            assert_eq!(taken(&pool, &all).unwrap(), all);
            pool.announce(all.iter().copied());
            assert_eq!(taken(&pool, &all[..7]).unwrap(), all[..7]);
            assert_eq!(taken(&pool, &[159, 1, 1, 130]).unwrap(), [159, 1, 1, 130]);
            assert_eq!(taken(&pool, &all[7..]).unwrap(), all[7..]);
            pool.announce([5, 5, 5].into_iter());
            assert_eq!(taken(&pool, &[5, 5, 5, 5]).unwrap(), [5; 4]);
            pool.announce(all.iter().rev().copied());
        }
    }

    #[test]
    fn what_is_announced_is_done_once_and_no_more_than_the_bound_ahead() {
        let (pool, runs) = counting(2, 4);
        pool.announce(100..120);
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(runs.load(Ordering::SeqCst) <= 4);
        let all: Vec<u32> = (100..120).collect();
        for job in &all {
            assert_eq!(taken(&pool, &[*job]).unwrap(), [*job]);
        }
        assert_eq!(runs.load(Ordering::SeqCst), 20);
    }

    #[test]
    fn an_error_and_a_panic_reach_the_caller_and_the_pool_goes_on() {
        let (pool, _) = counting(2, 4);
        pool.announce([1, 13, 14, 2].into_iter());
        assert!(matches!(taken(&pool, &[1, 13]), Err(DataError::Index { len: 13, .. })));
        assert!(matches!(taken(&pool, &[14]), Err(DataError::Index { len: 0, .. })));
        assert_eq!(taken(&pool, &[2, 3]).unwrap(), [2, 3]);
    }

    #[test]
    fn several_callers_get_all_they_ask_for() {
        let (pool, _) = counting(2, 3);
        pool.announce(20..200);
        std::thread::scope(|scope| {
            for start in [20, 80, 140] {
                let pool = &pool;
                scope.spawn(move || {
                    for job in start..start + 60 {
                        assert_eq!(taken(pool, &[job, 7]).unwrap(), [job, 7]);
                    }
                });
            }
        });
    }
}
