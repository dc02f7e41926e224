//! Where the tensors are in a PyTorch pickle and what they are called: state dicts, checkpoints that hold one, whole
//! modules, and objects that hold a module. Called by [`super::torch`], which then reads the tensors found.
//!
//! PyTorch's names are paths: `torch.nn.Module` keeps `_parameters`, `_buffers` and `_modules`, and
//! `Module.state_dict` joins their keys with dots; what is found in a module gets the same names here.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};

use super::pickle::{Id, Made, Pickle, Value};

/// Where a checkpoint keeps its network, the likeliest first.
const LIKELY: [&str; 10] = [
    "state_dict",
    "model_state_dict",
    "model_state",
    "state",
    "model",
    "net",
    "network",
    "module",
    "weights",
    "params",
];

/// Deepest nesting of modules and dicts.
const DEPTH_MAX: usize = 64;
/// Most tensors, and most modules and dicts that are walked through: shared ones are walked once a name.
const FOUND_MAX: usize = 100_000;
/// Most items of dicts that are looked at: a hostile file can refer to one large dict many times.
const LOOKED_AT_MAX: usize = 50_000_000;
/// Longest name of a tensor in bytes.
const NAME_LEN_MAX: usize = 1024;

/// Functions whose result is a tensor that can be read. All take a storage or another tensor first.
const REBUILDS: [(&str, &str); 8] = [
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_tensor_v3"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_parameter_with_state"),
    ("torch.nn.parameter", "Parameter"),
    ("torch._tensor", "_rebuild_from_type_v2"),
    ("torch.tensor", "_rebuild_from_type_v2"),
];

/// A tensor under its name, as the value that describes it.
pub(super) type Found = (String, Id);

/// What was found.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) tensors: Vec<Found>,
    /// Where, for the log: `state_dict`, `network`; empty at the top.
    pub(super) path: String,
    /// What lay beside tensors and is not read.
    pub(super) beside: BTreeSet<String>,
}

/// Why the tensors could not be told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StateError {
    /// There are none.
    NoTensors,
    /// A tensor, but no name for it.
    Nameless,
    /// Too deep, too many, too long.
    Excess(&'static str),
    /// `tensor` needs `global` to be called.
    NotCalled { tensor: String, global: String },
}

/// Finds the tensors of a network.
pub(super) fn find(pickle: &Pickle<'_>) -> Result<State, StateError> {
    let mut finder =
        Finder { pickle, holds: HashMap::new(), walked: 0, looked_at: Cell::new(0), state: State::default() };
    if finder.rebuilds(pickle.root) {
        return Err(StateError::Nameless);
    }
    if !finder.holds(pickle.root, 0) {
        return Err(StateError::NoTensors);
    }
    finder.take(pickle.root, "", 0)?;
    if finder.looked_at.get() > LOOKED_AT_MAX {
        return Err(StateError::Excess("the same dicts in too many places"));
    }
    match finder.state.tensors.is_empty() {
        true => Err(StateError::NoTensors),
        false => Ok(finder.state),
    }
}

struct Finder<'p> {
    pickle: &'p Pickle<'p>,
    /// Whether something is, or leads to, a tensor.
    holds: HashMap<Id, bool>,
    walked: usize,
    looked_at: Cell<usize>,
    state: State,
}

impl<'p> Finder<'p> {
    fn made(&self, id: Id) -> Option<&'p Made> {
        match self.pickle.get(id) {
            Value::Made(made) => Some(made),
            _ => None,
        }
    }

    /// Whether the value is a tensor that can be read.
    fn rebuilds(&self, id: Id) -> bool {
        let callee = self.made(id).and_then(|made| self.pickle.global(made.callee));
        callee.is_some_and(|callee| REBUILDS.contains(&callee))
    }

    /// Whether the value is made, by a call that is not known, of something that holds numbers.
    fn is_foreign_tensor(&self, id: Id) -> bool {
        let Some(made) = self.made(id).filter(|_| !self.rebuilds(id)) else { return false };
        if self.pickle.global(made.callee) == Some(("torch.storage", "_load_from_bytes")) {
            return false;
        }
        let arguments = self.pickle.list(made.arguments).unwrap_or_default();
        arguments.iter().any(|&a| {
            matches!(self.pickle.get(a), Value::Outside(_))
                || self.rebuilds(a)
                || self
                    .pickle
                    .list(a)
                    .is_some_and(|l| l.iter().any(|&m| matches!(self.pickle.get(m), Value::Outside(_))))
        })
    }

    /// Text keys and values of a dict or of an object that is one (an `OrderedDict`, a class derived from it).
    fn pairs(&self, id: Id) -> Vec<(&'p str, Id)> {
        let named = |&(key, value): &(Id, Id)| Some((self.pickle.text(key)?, value));
        let items = match self.pickle.get(id) {
            Value::Dict(items) => items.len(),
            Value::Made(made) => made.items.len(),
            _ => 0,
        };
        self.looked_at.set(self.looked_at.get().saturating_add(1 + items));
        if self.looked_at.get() > LOOKED_AT_MAX {
            return Vec::new(); // `find` makes an error of it
        }
        match self.pickle.get(id) {
            Value::Dict(items) => items.iter().filter_map(named).collect(),
            Value::Made(made) if !made.items.is_empty() => made.items.iter().filter_map(named).collect(),
            // Python 2 gives an OrderedDict its pairs as an argument
            Value::Made(made) if self.pickle.global(made.callee) == Some(("collections", "OrderedDict")) => {
                let pairs = self.pickle.list(made.arguments).and_then(|a| self.pickle.list(*a.first()?));
                let pair = |&p: &Id| match self.pickle.list(p)? {
                    &[key, value] => Some((self.pickle.text(key)?, value)),
                    _ => None,
                };
                pairs.unwrap_or_default().iter().filter_map(pair).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Attributes of an object: its state is a dict, or a pair of two of them.
    fn attributes(&self, id: Id) -> Vec<(&'p str, Id)> {
        let Some(made) = self.made(id) else { return Vec::new() };
        let mut all = Vec::new();
        for &state in &made.state {
            match self.pickle.list(state) {
                Some(parts) => parts.iter().for_each(|&p| all.extend(self.pairs(p))),
                None => all.extend(self.pairs(state)),
            }
        }
        all
    }

    fn attribute(&self, id: Id, name: &str) -> Option<Id> {
        self.attributes(id).into_iter().rev().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    fn is_module(&self, id: Id) -> bool {
        self.attribute(id, "_parameters").is_some() || self.attribute(id, "_modules").is_some()
    }

    /// What lies in a dict or an object.
    fn children(&self, id: Id) -> Vec<(&'p str, Id)> {
        let mut all = self.pairs(id);
        all.extend(self.attributes(id));
        all
    }

    /// Whether `id` is, or leads to, a tensor with names on the way.
    fn holds(&mut self, id: Id, depth: usize) -> bool {
        if let Some(&known) = self.holds.get(&id) {
            return known;
        }
        // while it is looked at: what leads back to itself leads nowhere new
        self.holds.insert(id, false);
        let holds = self.rebuilds(id)
            || self.is_foreign_tensor(id)
            || (depth < 4 * DEPTH_MAX && self.children(id).iter().any(|&(_, child)| self.holds(child, depth + 1)));
        self.holds.insert(id, holds);
        holds
    }

    fn walk(&mut self, depth: usize) -> Result<(), StateError> {
        self.walked += 1;
        match (depth > DEPTH_MAX, self.walked > FOUND_MAX) {
            (true, _) => Err(StateError::Excess("modules or dicts nested deeper than 64")),
            (_, true) => Err(StateError::Excess("more than 100,000 modules and dicts")),
            _ => Ok(()),
        }
    }

    /// The tensors of `id`, whatever it is, with `prefix` in front of their names.
    fn take(&mut self, id: Id, prefix: &str, depth: usize) -> Result<(), StateError> {
        self.walk(depth)?;
        if self.is_module(id) {
            return self.module(id, prefix, depth);
        }
        let children = self.children(id);
        let likely = LIKELY.iter().find_map(|likely| children.iter().find(|(name, _)| name == likely).copied());
        let likely = likely.filter(|&(_, c)| !self.rebuilds(c) && !self.is_foreign_tensor(c) && self.holds(c, 0));
        if let Some((name, child)) = likely {
            children.iter().filter(|(n, _)| *n != name).for_each(|&(n, c)| self.beside(n, c));
            return self.inner(name, child, prefix, depth);
        }
        let direct = children.iter().any(|&(_, c)| self.rebuilds(c) || self.is_foreign_tensor(c));
        if direct {
            for (name, child) in children {
                self.entry(&join(prefix, name), child)?;
            }
            return Ok(());
        }
        let mut candidates = Vec::new();
        for (name, child) in children {
            // an optimizer's tensors are as large as the network and have its shapes
            if !name.starts_with("optim") && self.holds(child, 0) {
                candidates.push((name, child));
            }
        }
        match candidates.as_slice() {
            &[(name, child)] => self.inner(name, child, prefix, depth),
            several => several.iter().try_for_each(|(n, c)| self.take(*c, &join(prefix, n), depth + 1)),
        }
    }

    /// The tensors of `child`, whose key is not part of their names.
    fn inner(&mut self, key: &str, child: Id, prefix: &str, depth: usize) -> Result<(), StateError> {
        self.state.path = join(&self.state.path, key);
        self.take(child, prefix, depth + 1)
    }

    /// A tensor, or something beside the tensors of a state dict.
    fn entry(&mut self, name: &str, id: Id) -> Result<(), StateError> {
        if self.rebuilds(id) {
            return self.found(name, id);
        }
        if self.is_foreign_tensor(id) {
            return Err(self.not_called(name, id));
        }
        self.beside(name, id);
        Ok(())
    }

    /// Notes something that is not read, where it could be of interest: not a number, a text or PyTorch's own business.
    fn beside(&mut self, name: &str, id: Id) {
        let plain = matches!(
            self.pickle.get(id),
            Value::None | Value::Bool(_) | Value::Int(_) | Value::Number | Value::Text(_)
        );
        let own = name.rsplit('.').next().is_some_and(|last| last.starts_with('_'));
        if !plain && !own && self.state.beside.len() < FOUND_MAX {
            self.state.beside.insert(shortened(name));
        }
    }

    fn found(&mut self, name: &str, id: Id) -> Result<(), StateError> {
        if name.len() > NAME_LEN_MAX {
            return Err(StateError::Excess("names longer than 1024 bytes"));
        }
        if self.state.tensors.len() >= FOUND_MAX {
            return Err(StateError::Excess("more than 100,000 tensors"));
        }
        self.state.tensors.push((name.to_owned(), id));
        Ok(())
    }

    fn not_called(&self, name: &str, id: Id) -> StateError {
        let global = self.made(id).map_or_else(String::new, |made| self.pickle.callee(made));
        StateError::NotCalled { tensor: shortened(name), global }
    }

    /// The tensors of a module, as `Module.state_dict` names them.
    fn module(&mut self, id: Id, prefix: &str, depth: usize) -> Result<(), StateError> {
        self.walk(depth)?;
        let transient: BTreeSet<&str> = match self.attribute(id, "_non_persistent_buffers_set") {
            Some(set) => self.set(set).iter().filter_map(|&m| self.pickle.text(m)).collect(),
            None => BTreeSet::new(),
        };
        for part in ["_parameters", "_buffers"] {
            let Some(dict) = self.attribute(id, part) else { continue };
            for (name, tensor) in self.pairs(dict) {
                let name_whole = join(prefix, name);
                match self.pickle.get(tensor) {
                    Value::None => {}
                    _ if part == "_buffers" && transient.contains(name) => {}
                    _ if self.rebuilds(tensor) => self.found(&name_whole, tensor)?,
                    // a parameter is a tensor, whatever makes it
                    _ => return Err(self.not_called(&name_whole, tensor)),
                }
            }
        }
        let modules = self.attribute(id, "_modules").map(|m| self.pairs(m)).unwrap_or_default();
        for (name, child) in modules {
            if self.is_module(child) {
                self.module(child, &join(prefix, name), depth + 1)?;
            }
        }
        Ok(())
    }

    fn set(&self, id: Id) -> &'p [Id] {
        match self.pickle.get(id) {
            Value::Set(members) => members,
            // protocols 0 to 3: set([...])
            Value::Made(made) => {
                let list = self.pickle.list(made.arguments).and_then(|a| self.pickle.list(*a.first()?));
                list.unwrap_or(&made.members)
            }
            _ => &[],
        }
    }
}

fn join(prefix: &str, name: &str) -> String {
    // a bound on what a chain of long names can cost; `found` refuses such a name
    let name: String = name.chars().take(NAME_LEN_MAX + 1).collect();
    match prefix {
        "" => name,
        long if long.len() > NAME_LEN_MAX => long.to_owned(),
        _ => format!("{prefix}.{name}"),
    }
}

fn shortened(name: &str) -> String {
    name.chars().take(120).collect()
}
