//! The sweep's shortcuts against the long way round: the cached prefix against one graph from pixels to logits, the
//! update of the decoder's first convolution against the convolution of the changed code.

mod common;

use common::hosts::{Built, Host, Piece, bits, largest, largest_difference, small, widen};
use common::{Data, backends};
use intervene::backend::Backend;
use intervene::backend::cpu::Cpu;
use intervene::backend::cpu::isa::Isa;
use intervene::graph::NodeId;
use intervene::graph::op::Op;
use intervene::model::autoencoder::Lists;
use std::sync::LazyLock;

/// An updated convolution adds the same products in another order: `pre` + W·(-z) instead of W·z. The rounding errors of
/// sums of at most 16·9 products, where a real code has many zeros. `method` asks for 1e-6 of the largest.
const UPDATE: f64 = 1e-6;
/// By Winograd's tiles both convolutions err by up to 4e-6 of their largest output; .96e-6 was seen.
const UPDATE_TILES: f64 = 4e-6;
/// The same as [`UPDATE`] at the logits, in units of the largest: another last digit in one layer rounds sums of up to 1600 products
/// differently in the next ones, and sqrt(1600)·2^-24 = 2.4e-6 a layer; measured 1.1e-6.
const UPDATE_LOGITS: f64 = 5e-6;

/// (host, images): the small one at every tap, before a ReLU and behind it, before and behind the pool.
fn subjects() -> Vec<(String, Host, usize)> {
    let mut all: Vec<_> = (1..=5).map(|tap| (format!("small, tap {tap}"), Host::small(tap), 5)).collect();
    // more nodes than one block of channels holds
    all.push(("small, 20 nodes".into(), Host::new(small(4), 2, (9, 20), 3), 5));
    all.push(("fashion, tap 2".into(), Host::fashion_seeded(), 2));
    all
}

/// The host whose layers go by Winograd's tiles.
const WIDE: &str = "wide, tap 2";

/// Each on every backend; and one whose layers go by Winograd's tiles on the CPU.
fn trials() -> Vec<(String, Host, usize, Box<dyn Backend>)> {
    let all = subjects().into_iter().flat_map(|(name, host, n)| {
        backends().into_iter().map(move |b| (name.clone(), host.clone(), n, b)).collect::<Vec<_>>()
    });
    let tiles = Isa::available().into_iter().map(|isa| Box::new(Cpu::with_isa(isa)) as Box<dyn Backend>);
    all.chain(tiles.map(|b| (WIDE.into(), Host::wide(), 2, b))).collect()
}

#[test]
fn tail_from_cache_is_bit_equal_to_the_whole_net() {
    for (name, host, n, backend) in trials() {
        let x = host.images(n, 1);
        let what = format!("{name} on {}", backend.name());
        let outcomes = host.outcomes(&x, backend.as_ref());
        let [orig, idle] = host.whole(&x, backend.as_ref());
        assert_eq!(bits(&outcomes.orig), bits(&orig), "p_orig, {what}");
        assert_eq!(bits(&outcomes.idle), bits(&idle), "p_idle, {what}");
        assert!(orig.iter().chain(&idle).all(|v| v.is_finite()) && bits(&orig) != bits(&idle), "{what}");
        let live = outcomes.live.iter().filter(|l| **l).count();
        assert!(2 * live >= outcomes.live.len(), "{what}: only {live} of {} are live", outcomes.live.len());
    }
}

#[test]
fn the_hosts_logits_are_those_of_its_forward_run_and_two_baseline_passes_are_bit_identical() {
    let host = Host::small(2);
    let x = host.images(6, 2);
    for backend in backends() {
        let mut sweep = host.sweep(&host.singles(), (4, 5), backend.as_ref());
        let mut run = || sweep.outcomes::<f32>(&x).unwrap_or_else(|e| panic!("{e}"));
        let (a, b) = (run(), run());
        for (a, b) in [(&a.orig, &b.orig), (&a.idle, &b.idle), (&a.done, &b.done)] {
            assert_eq!(bits(a), bits(b), "{}", backend.name());
        }
        let forward = sweep.victim().forward(&x).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(bits(&forward), bits(&a.orig), "{}", backend.name());
    }
}

/// Every image under every set, by the update and by the convolution of the changed code.
struct Both {
    name: String,
    images: usize,
    sets: Vec<Vec<usize>>,
    /// `pre` of every image, and its row length.
    pre: Vec<f64>,
    row: usize,
    idle: Vec<f64>,
    update: [Vec<f64>; 2],
    direct: [Vec<f64>; 2],
    classes: usize,
}

/// Code channel that is 0 on every image.
const DEAD: usize = 4;

impl Both {
    fn of(name: &str, host: &Host, images: usize, backend: &dyn Backend) -> Both {
        let k = host.autoencoder.nodes;
        let mut sets: Vec<Vec<usize>> = vec![vec![], vec![DEAD], vec![1], vec![1], vec![2], vec![1, 2], vec![1, DEAD]];
        sets.push((0..k).collect());
        let keep: Vec<f32> =
            sets.iter().flat_map(|set| (0..k).map(|n| if set.contains(&n) { 0.0 } else { 1.0 })).collect();
        let rows = images * sets.len();
        let build = |p: &mut Piece<'_>| -> Built {
            let code = p.code()?;
            let pre = host.autoencoder.pre(p.graph, code)?;
            let idle = p.behind(pre)?;
            let lists = Lists { images: p.list("image"), sets: p.list("set"), keep: table(p, sets.len(), k) };
            let update = host.autoencoder.intervened_pre(p.graph, pre, code, lists)?;
            let changed = p.graph.push("do", Op::Intervene, &[code, lists.images, lists.sets, lists.keep])?;
            let direct = host.autoencoder.pre(p.graph, changed)?;
            let logits = [p.behind(update)?, p.behind(direct)?];
            Ok(vec![pre, idle, update, direct, logits[0], logits[1]])
        };
        let mut loaded = host.piece(backend, rows, build);
        let image = (0..rows).map(|r| (r / sets.len()) as u32).collect();
        let set = (0..rows).map(|r| (r % sets.len()) as u32).collect();
        // rows behind the images repeat the first: a run has as many rows as variants
        let x = widen(&host.images(images, 7));
        let padded = x.iter().copied().chain(x[..host.pixels()].iter().copied().cycle()).take(rows * host.pixels());
        let data =
            [Data::Floats(padded.collect()), Data::Indices(image), Data::Indices(set), Data::Floats(widen(&keep))];
        let [pre, idle, a, b, c, d] = loaded.run(&data, rows).try_into().expect("six wanted nodes");
        let (row, classes) = (pre.len() / rows, host.model.classes);
        let name = format!("{name} on {}", backend.name());
        Both { name, images, sets, pre, row, idle, update: [a, c], direct: [b, d], classes }
    }

    /// Every subject on every backend, computed once.
    fn all() -> &'static [Both] {
        static ALL: LazyLock<Vec<Both>> = LazyLock::new(|| {
            let mut all = Vec::new();
            for (name, host, images, backend) in trials() {
                all.push(Both::of(&name, &host.with_dead(DEAD), images, backend.as_ref()));
            }
            all
        });
        &ALL
    }

    /// The row of image `i` under set number `s`: of the convolution (`at` 0) or of the logits (`at` 1).
    fn rows<'a>(&self, of: &'a [Vec<f64>; 2], at: usize, i: usize, s: usize) -> &'a [f64] {
        let row = [self.row, self.classes][at];
        &of[at][(i * self.sets.len() + s) * row..][..row]
    }

    /// Of the convolution.
    fn tolerance(&self) -> f64 {
        if self.name.starts_with(WIDE) { UPDATE_TILES } else { UPDATE }
    }

    fn number(&self, set: &[usize]) -> usize {
        self.sets.iter().position(|s| s == set).expect("a set")
    }
}

fn table(p: &mut Piece<'_>, sets: usize, k: usize) -> NodeId {
    p.given.push(p.graph.whole_input("keep", [sets, k]));
    p.given[p.given.len() - 1]
}

#[test]
fn an_intervention_by_update_equals_the_convolution_of_the_changed_code() {
    for both in Both::all() {
        let Both { name, update, direct, .. } = both;
        for (at, tolerance) in [(0, both.tolerance()), (1, UPDATE_LOGITS)] {
            let (difference, size) = (largest_difference(&update[at], &direct[at]), largest(&direct[at]));
            println!("{name}: {:.1} % of the tolerance", 100.0 * difference / (tolerance * size));
            assert!(difference <= tolerance * size, "{name}: {difference} of {size}");
        }
    }
}

#[test]
fn do_nothing_and_do_on_a_dead_channel_are_idle_bit_for_bit() {
    for both in Both::all() {
        for i in 0..both.images {
            let pre = &both.pre[i * both.row..][..both.row];
            let idle = &both.idle[i * both.classes..][..both.classes];
            for set in [&[][..], &[DEAD]] {
                let s = both.number(set);
                for of in [&both.update, &both.direct] {
                    assert_eq!(bits(both.rows(of, 0, i, s)), bits(pre), "{}, {set:?}", both.name);
                    assert_eq!(bits(both.rows(of, 1, i, s)), bits(idle), "{}, {set:?}", both.name);
                }
            }
            let live = both.rows(&both.update, 0, i, both.number(&[1, 2]));
            assert_ne!(bits(live), bits(pre), "{}: nothing was done", both.name);
            let beside = both.rows(&both.update, 0, i, both.number(&[1, DEAD]));
            assert_eq!(bits(beside), bits(both.rows(&both.update, 0, i, both.number(&[1]))), "{}", both.name);
        }
    }
}

#[test]
fn the_same_set_twice_gives_the_same_bits() {
    for both in Both::all() {
        let twins: Vec<usize> = (0..both.sets.len()).filter(|&s| both.sets[s] == [1]).collect();
        assert_eq!(twins.len(), 2);
        for (i, at) in (0..both.images).flat_map(|i| [(i, 0), (i, 1)]) {
            for of in [&both.update, &both.direct] {
                let [a, b] = [0, 1].map(|t| bits(both.rows(of, at, i, twins[t])));
                assert_eq!(a, b, "{}", both.name);
            }
        }
    }
}

#[test]
fn do_all_gives_one_output_for_every_image() {
    for both in Both::all() {
        let s = both.sets.iter().position(|set| set.len() >= 6).expect("all nodes");
        for (at, tolerance) in [(0, both.tolerance()), (1, UPDATE_LOGITS)] {
            let first = both.rows(&both.direct, at, 0, s);
            // the sums that the update cancels are as large as `pre`
            let size = if at == 0 { largest(&both.pre) } else { largest(&both.direct[1]) };
            for i in 0..both.images {
                assert_eq!(bits(both.rows(&both.direct, at, i, s)), bits(first), "{}", both.name);
                let difference = largest_difference(both.rows(&both.update, at, i, s), first);
                assert!(difference <= tolerance * size, "{}: {difference} of {size}", both.name);
            }
        }
    }
}

#[test]
fn do_is_idempotent_commutes_and_joins_disjoint_sets_bit_for_bit() {
    let host = Host::small(2);
    let (images, k) = (5, host.autoencoder.nodes);
    // sets: none, {1}, {2}, {1,2}
    let keep: Vec<f64> = [[].as_slice(), &[1], &[2], &[1, 2]]
        .iter()
        .flat_map(|set| (0..k).map(|n| f64::from(u8::from(!set.contains(&n)))))
        .collect();
    for backend in backends() {
        let mut twice = host.piece(backend.as_ref(), images, |p| {
            let code = p.code()?;
            let (rows, first, second) = (p.list("image"), p.list("first"), p.list("second"));
            let keep = table(p, 4, k);
            let once = p.graph.push("once", Op::Intervene, &[code, rows, first, keep])?;
            let twice = p.graph.push("twice", Op::Intervene, &[once, rows, second, keep])?;
            let pre = host.autoencoder.pre(p.graph, twice)?;
            Ok(vec![twice, p.behind(pre)?])
        });
        let x = widen(&host.images(images, 9));
        let mut done = |first: u32, second: u32| {
            let lists = [(0..images as u32).collect(), vec![first; images], vec![second; images]];
            let [a, b, c] = lists.map(Data::Indices);
            let got = twice.run(&[Data::Floats(x.clone()), a, b, c, Data::Floats(keep.clone())], images);
            got.iter().map(|v| bits(v)).collect::<Vec<_>>()
        };
        let (one, both) = (done(1, 0), done(3, 0));
        assert_ne!(one, both);
        assert_eq!(done(1, 1), one, "idempotent on {}", backend.name());
        assert_eq!(done(1, 2), both, "union on {}", backend.name());
        assert_eq!(done(2, 1), both, "commutes on {}", backend.name());
        assert_eq!(done(0, 0), done(0, 0));
    }
}
