//! The call that is running: its time, its memory, and what it may still do.
//!
//! Many calls share a VM, so the interrupt must know whose time it is. A slot names the running call; it is set before
//! each poll of a call and cleared after it.

use std::cell::{Cell, OnceCell, RefCell};
use std::ffi::c_void;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mlua::{Lua, Table, Value, VmState};
use patchbay_plugin::catalogue::Catalogue;

use crate::call::{CatalogueReader, Reads};
use crate::clock;
use crate::limits::Limits;

/// Which limit a call ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// Its running time at the top level of the files.
    Load,
    /// Its running time in the hook.
    Deadline,
    /// The time on the clock.
    Wall,
}

/// One call, as the host functions see it.
pub(crate) struct Running {
    /// The hook that is called; none while a plugin is loaded.
    pub(crate) hook: Option<&'static str>,
    /// Through which `db` reads; none for the hooks that get no `db`.
    pub(crate) reader: Option<Arc<dyn CatalogueReader>>,
    catalogue: OnceCell<Arc<Catalogue>>,
    /// What it read.
    pub(crate) reads: Cell<Reads>,
    /// Whether the top level of the files is running, where `require` works.
    pub(crate) loading: Cell<bool>,
    /// Whether it is over. What is bound to a call answers nothing from then on.
    pub(crate) ended: Cell<bool>,
    /// The limit it ran into.
    pub(crate) over: Cell<Option<Over>>,
    /// Where it was when it ran into that.
    place: RefCell<Option<(String, u32)>>,
    /// The modules that a load has required, in order.
    pub(crate) modules: RefCell<Vec<(String, Module)>>,
    /// The modules that a call has required; each call has its own.
    own_modules: RefCell<Option<Table>>,
    /// The coroutine in which the hook runs. Only there may the interrupt yield.
    thread: Cell<*const c_void>,
    spent: Cell<Duration>,
    limit: Cell<Duration>,
    /// When the poll began, by the coarse clock.
    since: Cell<Duration>,
    /// What the poll had taken when the thread's own clock was first read, and what that clock said. Short calls never
    /// read it.
    own_clock: Cell<Option<(Duration, Duration)>>,
    /// What the poll must have taken before the deadline is looked at again.
    look_at: Cell<Duration>,
    polls: Cell<u32>,
    /// Whether the files are run ahead of a call.
    ahead: Cell<bool>,
    /// The longest poll.
    pub(crate) longest: Cell<Duration>,
}

/// A required module.
pub(crate) enum Module {
    /// It is being run; requiring it again is a cycle.
    Opening,
    /// What it returned.
    Ready(Value),
}

impl Running {
    pub(crate) fn new(
        hook: Option<&'static str>,
        reader: Option<Arc<dyn CatalogueReader>>,
        limits: &Limits,
    ) -> Rc<Running> {
        Rc::new(Running {
            hook,
            reader,
            catalogue: OnceCell::new(),
            reads: Cell::default(),
            loading: Cell::new(true),
            ended: Cell::new(false),
            over: Cell::new(None),
            place: RefCell::new(None),
            modules: RefCell::default(),
            own_modules: RefCell::default(),
            thread: Cell::new(std::ptr::null()),
            spent: Cell::new(Duration::ZERO),
            limit: Cell::new(limits.load_deadline),
            since: Cell::new(clock::coarse()),
            own_clock: Cell::new(None),
            look_at: Cell::new(Duration::ZERO),
            polls: Cell::new(0),
            ahead: Cell::new(false),
            longest: Cell::new(Duration::ZERO),
        })
    }

    /// The files' top level, run ahead of a call: for a slice of the thread's own time, without a turn for others.
    pub(crate) fn ahead(limits: &Limits) -> Rc<Running> {
        let running = Running::new(None, None, limits);
        running.limit.set(limits.slice);
        running.ahead.set(true);
        running
    }

    /// Whether this is a plugin's load, which is where its files are checked and what they say is heard.
    pub(crate) fn is_load(&self) -> bool {
        self.hook.is_none() && !self.ahead.get()
    }

    /// The catalogue, the same one for the whole call.
    pub(crate) fn catalogue(&self) -> Option<&Arc<Catalogue>> {
        let reader = self.reader.as_ref()?;
        let mut reads = self.reads.get();
        reads.catalogue = true;
        self.reads.set(reads);
        Some(self.catalogue.get_or_init(|| reader.catalogue()))
    }

    /// The table of the call's modules.
    pub(crate) fn own_modules(&self, lua: &Lua) -> mlua::Result<Table> {
        if let Some(modules) = self.own_modules.borrow().as_ref() {
            return Ok(modules.clone());
        }
        let modules = lua.create_table()?;
        *self.own_modules.borrow_mut() = Some(modules.clone());
        Ok(modules)
    }

    /// Names the coroutine in which the hook runs.
    pub(crate) fn runs_in(&self, thread: &mlua::Thread) {
        self.thread.set(thread.to_pointer());
    }

    /// Whether the hook's own coroutine is the one that runs now.
    pub(crate) fn is_in_own_thread(&self, lua: &Lua) -> bool {
        lua.current_thread().to_pointer() == self.thread.get()
    }

    /// Where it was when it ran into a limit: the file, as messages name it, and the line.
    pub(crate) fn place(&self) -> Option<(String, u32)> {
        self.place.borrow().clone()
    }

    /// The top level is done: from here on the hook's own deadline counts.
    pub(crate) fn loaded(&self, limits: &Limits) {
        self.loading.set(false);
        let polled = clock::coarse().saturating_sub(self.since.get());
        self.limit
            .set(self.spent.get() + self.run_in_poll(polled) + limits.deadline);
        self.look_at.set(Duration::ZERO);
    }

    /// A poll begins.
    fn resume(&self) {
        self.since.set(clock::coarse());
        self.look_at.set(Duration::ZERO);
        self.own_clock.set(match self.polls.get() {
            0 => None,
            _ => Some((Duration::ZERO, clock::thread())),
        });
        self.polls.set(self.polls.get().saturating_add(1));
    }

    /// The poll ends.
    fn pause(&self) {
        let polled = clock::coarse().saturating_sub(self.since.get());
        self.spent.set(self.spent.get() + self.run_in_poll(polled));
        self.longest.set(self.longest.get().max(polled));
    }

    /// What the poll has run, of the time it has taken.
    fn run_in_poll(&self, polled: Duration) -> Duration {
        match self.own_clock.get() {
            Some((before, clock)) => before + clock::thread().saturating_sub(clock),
            None => polled,
        }
    }

    /// Whether the call has run longer than it may. `polled` is what this poll has taken.
    fn is_late(&self, polled: Duration) -> bool {
        if polled < self.look_at.get() {
            return false;
        }
        let spent = self.spent.get() + self.run_in_poll(polled);
        let limit = self.limit.get();
        // No thread runs faster than the clock goes, so before this there is nothing to see.
        self.look_at
            .set(polled + limit.saturating_sub(spent).max(Duration::from_millis(1)));
        spent > limit
    }

    /// Ends the call for everything that is bound to it.
    pub(crate) fn end(&self) {
        self.ended.set(true);
        // The modules hold on to the VM's values, and closures in the VM hold on to this.
        self.modules.borrow_mut().clear();
        self.own_modules.borrow_mut().take();
    }
}

/// Names the call that is running, for the interrupt and the host functions of one VM.
pub(crate) struct Slot {
    current: RefCell<Option<Rc<Running>>>,
    /// The use of memory at which the interrupt collects garbage.
    collect_at: Cell<usize>,
    limits: Limits,
}

impl Slot {
    pub(crate) fn new(limits: Limits) -> Rc<Slot> {
        Rc::new(Slot {
            current: RefCell::new(None),
            collect_at: Cell::new(limits.memory / 2),
            limits,
        })
    }

    /// The call that is running.
    pub(crate) fn current(&self) -> Option<Rc<Running>> {
        self.current.borrow().clone()
    }

    /// Does a piece of a call's work: names it as the one that runs, and counts its time.
    pub(crate) fn run<T>(&self, running: &Rc<Running>, work: impl FnOnce() -> T) -> T {
        running.resume();
        let before = self.current.borrow_mut().replace(running.clone());
        let done = work();
        *self.current.borrow_mut() = before;
        running.pause();
        done
    }

    /// The top level of the running call's files is done.
    pub(crate) fn loaded(&self) {
        if let Some(running) = self.current.borrow().as_ref() {
            running.loaded(&self.limits);
        }
    }

    /// Lends the call that is running.
    pub(crate) fn with_current<T>(&self, use_it: impl FnOnce(Option<&Running>) -> T) -> T {
        use_it(self.current.borrow().as_deref())
    }

    /// What every loop iteration, call and return of Lua code passes through.
    pub(crate) fn interrupt(&self, lua: &Lua) -> mlua::Result<VmState> {
        let current = self.current.borrow();
        let Some(running) = current.as_ref() else {
            return Ok(VmState::Continue);
        };
        let polled = clock::coarse().saturating_sub(running.since.get());
        let sliced = polled > self.limits.slice;
        if sliced && running.own_clock.get().is_none() {
            // The coarse clock moves by more than a slice at a time: what it says of files that are run ahead, and take
            // some microseconds, may all be the time before them.
            let before = match running.ahead.get() {
                true => Duration::ZERO,
                false => polled,
            };
            running.own_clock.set(Some((before, clock::thread())));
        }
        let over = if running.is_late(polled) {
            Some(match running.loading.get() {
                true => Over::Load,
                false => Over::Deadline,
            })
        } else if polled > self.limits.wall {
            Some(Over::Wall)
        } else {
            running.over.get()
        };
        if let Some(over) = over {
            if running.over.get().is_none() {
                running.over.set(Some(over));
                *running.place.borrow_mut() = place_of(lua);
            }
            // Raised again on every tick, or a loop around `pcall` would outlive it.
            return Err(mlua::Error::RuntimeError(
                "the call ran longer than it may".to_owned(),
            ));
        }
        let used = lua.used_memory();
        if used > self.collect_at.get() {
            // Luau has no emergency collection: without this, a loop that makes garbage fails with nothing live.
            lua.gc_collect()?;
            let live = lua.used_memory();
            let room = self.limits.memory.saturating_sub(live);
            let step = (room / 2).max(self.limits.memory / 16);
            self.collect_at
                .set((live + step).max(self.limits.memory / 2));
        }
        if sliced && running.is_in_own_thread(lua) && !is_waiting(lua) {
            return Ok(VmState::Yield);
        }
        Ok(VmState::Continue)
    }
}

/// Whether the function that runs is mlua's own, in which an async function of the host waits. It polls the function's
/// future and then yields; a yield in between would take the wake that is meant for the future, which would then never be
/// polled again.
fn is_waiting(lua: &Lua) -> bool {
    lua.inspect_stack(0, |debug| {
        let source = debug.source();
        source.short_src.is_some_and(|chunk| is_of_mlua(&chunk))
    })
    .unwrap_or(false)
}

fn is_of_mlua(chunk: &str) -> bool {
    chunk.starts_with("__mlua")
}

/// The innermost line of the plugin's own code.
pub(crate) fn place_of(lua: &Lua) -> Option<(String, u32)> {
    (0..20).find_map(|level| {
        lua.inspect_stack(level, |debug| {
            let source = debug.source();
            let chunk = source.short_src?;
            let own = source.what == "C" || chunk.starts_with('[') || is_of_mlua(&chunk);
            let line = u32::try_from(debug.current_line()?).ok()?;
            (!own).then(|| (chunk.into_owned(), line))
        })
        .flatten()
    })
}
