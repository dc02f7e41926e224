//! The graph that maps are made with: the host with what weighs its maps, the autoencoder-inserted net with what changes its
//! code, attacks; and the entries that methods run, of which only those asked for are planned. Used by [`super::explainer`].

use super::cam::{self, Maps};
use super::explainer::Subject;
use super::{ExplainError, Method};
use crate::attack::victim as attack;
use crate::graph::plan::{Artifact, Entry, EntryId, plan};
use crate::graph::{Graph, GraphError, NodeId};
use crate::model::autoencoder::{Autoencoder, Lists};
use crate::model::{Model, Tap};

/// What methods run, one entry each.
pub(super) struct Nodes {
    pub x: NodeId,
    pub attack: attack::Nodes,
    pub host: Host,
    pub inserted: Option<Inserted>,
    pub pieces: Vec<Piece>,
}

#[derive(Clone, Copy)]
pub(super) struct Host {
    pub maps: NodeId,
    pub seed: NodeId,
    pub grad_cam: NodeId,
    pub cam: Option<NodeId>,
    pub lists: Lists,
    pub ablated: NodeId,
}

#[derive(Clone, Copy)]
pub(super) struct Inserted {
    pub code: NodeId,
    pub pre: NodeId,
    pub lists: Lists,
    pub done: NodeId,
    pub idle: NodeId,
    pub changed: NodeId,
    pub answered: NodeId,
}

/// What is run for a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// Pixels to the maps A.
    Maps,
    /// Maps and seeds to Grad-CAM.
    GradCam,
    /// Maps and seeds to CAM.
    Cam,
    /// Maps with channels zeroed to logits.
    Ablate,
    /// Pixels to the code and the decoder's first sums.
    Code,
    /// Those with nodes zeroed to logits.
    Do,
    /// A code to logits.
    Decode,
    /// Pixels to the idle logits.
    Idle,
}

/// A job as the plan takes it.
pub(super) struct Piece {
    pub job: Job,
    given: Vec<NodeId>,
    want: Vec<NodeId>,
}

pub(super) fn build(subject: Subject<'_>, methods: &[Method]) -> Result<(Graph, Nodes), ExplainError> {
    let Subject { model, inserted, .. } = subject;
    let mut g = Graph::new();
    let x = g.input("x", model.input);
    let normalised = model.normalise(&mut g, x)?;
    let attack = attack::Nodes::add(&mut g, model, None, (x, normalised))?;
    let at = cam::maps(model, &mut g, normalised, 0)?;
    let host = host(model, &mut g, at)?;
    let inserted = inserted.map(|(tap, ae)| insert(model, &mut g, normalised, tap, ae)).transpose()?;
    let mut pieces: Vec<Piece> = Vec::new();
    let mut add = |job: Job, given: &[NodeId], want: &[NodeId]| {
        if pieces.iter().all(|piece| piece.job != job) {
            pieces.push(Piece { job, given: given.to_vec(), want: want.to_vec() });
        }
    };
    for &method in methods {
        method.check(model)?;
        let ae = || inserted.ok_or(ExplainError::NoAutoencoder { method: method.name() });
        match method {
            Method::Cam | Method::GradCam | Method::AblationCam => add(Job::Maps, &[x], &[host.maps]),
            Method::Cem | Method::CemCells => add(Job::Code, &[x], &[ae()?.code, ae()?.pre]),
            Method::CemOcclusion => add(Job::Idle, &[x], &[ae()?.idle]),
            Method::Occlusion => {}
        }
        match method {
            Method::Cam => add(Job::Cam, &[host.maps, host.seed], &host.cam.map_or(vec![], |cam| vec![cam])),
            Method::GradCam => add(Job::GradCam, &[host.maps, host.seed], &[host.grad_cam]),
            Method::AblationCam => {
                let Lists { images, sets, keep } = host.lists;
                add(Job::Ablate, &[host.maps, images, sets, keep], &[host.ablated]);
            }
            Method::Cem => {
                let Inserted { code, pre, lists: Lists { images, sets, keep }, done, .. } = ae()?;
                add(Job::Do, &[pre, code, images, sets, keep], &[done]);
            }
            Method::CemCells => add(Job::Decode, &[ae()?.changed], &[ae()?.answered]),
            Method::CemOcclusion | Method::Occlusion => {}
        }
    }
    Ok((g, Nodes { x, attack, host, inserted, pieces }))
}

fn lists(g: &mut Graph, name: &str, channels: usize) -> Lists {
    Lists {
        images: g.index_input(&format!("{name}.image")),
        sets: g.index_input(&format!("{name}.set")),
        // set 0 keeps everything, set k + 1 all but channel k
        keep: g.whole_input(&format!("{name}.keep"), [channels + 1, channels]),
    }
}

fn host(model: &Model, g: &mut Graph, at: Maps) -> Result<Host, GraphError> {
    let seed = g.input("seed", [model.classes]);
    let grad_cam = cam::signed_grad_cam(g, at, seed)?;
    let head = model.linear_head();
    let weight = head.as_ref().and_then(|key| g.parameter_named(key));
    let cam = weight.map(|weight| cam::cam(g, at.maps, weight, seed)).transpose()?;
    let channels = g.node(at.maps).shape.dims().first().copied().unwrap_or(1);
    let lists = lists(g, "ablated", channels);
    let ablated = cam::ablated(model, g, at.maps, lists)?;
    Ok(Host { maps: at.maps, seed, grad_cam, cam, lists, ablated })
}

fn insert(
    model: &Model,
    g: &mut Graph,
    normalised: NodeId,
    tap: &Tap,
    autoencoder: &Autoencoder,
) -> Result<Inserted, GraphError> {
    let front = model.front(g, normalised, 0, tap.number)?;
    let code = autoencoder.encode(g, front)?;
    let pre = autoencoder.pre(g, code)?;
    let behind = |g: &mut Graph, pre: NodeId| {
        let decoded = autoencoder.decode(g, pre)?;
        model.tail(g, decoded, tap.number)
    };
    let lists = lists(g, "variant", autoencoder.nodes);
    let intervened = autoencoder.intervened_pre(g, pre, code, lists)?;
    let done = behind(g, intervened)?;
    let idle = behind(g, pre)?;
    let changed = g.input("code.changed", g.node(code).shape.clone());
    let answered = autoencoder.pre(g, changed).and_then(|pre| behind(g, pre))?;
    Ok(Inserted { code, pre, lists, done, idle, changed, answered })
}

impl Nodes {
    /// Attacks first, then the pieces, for batches of `rows`.
    pub fn plan(&self, graph: &Graph, rows: usize) -> Result<Artifact, GraphError> {
        let own = self.pieces.iter().map(|p| Entry {
            name: p.job.name(),
            given: &p.given,
            want: &p.want,
            updates: &[],
            capacity: rows,
        });
        plan(graph, &self.attack.entries(rows).chain(own).collect::<Vec<_>>())
    }

    pub fn entry(&self, job: Job, method: Method) -> Result<EntryId, ExplainError> {
        let found = self.pieces.iter().position(|piece| piece.job == job);
        let number = found.ok_or(ExplainError::NotLoaded { method: method.name() })?;
        Ok(EntryId(self.attack.entries(1).count() + number))
    }
}

impl Job {
    fn name(self) -> &'static str {
        match self {
            Job::Maps => "maps",
            Job::GradCam => "grad-cam",
            Job::Cam => "cam",
            Job::Ablate => "ablated logits",
            Job::Code => "code",
            Job::Do => "logits of do",
            Job::Decode => "logits of a code",
            Job::Idle => "idle logits",
        }
    }
}
