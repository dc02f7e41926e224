//! Shapley values of nodes (Shapley 1953): what each adds to the effect of zeroing nodes one after the other, averaged over
//! orders. Where nodes do each other's work, zeroing one alone shows little; Shapley's values share out the effect of zeroing
//! all of them, and add up to it.
//!
//! Orders are sampled (Castro, Gomez and Tejada 2009), each together with its reverse, which a value that depends on the place
//! in the order wants. One set of orders serves all images, so that its sets of nodes are interventions of one sweep.

use super::CausalError;
use super::intervention::NodeSet;
use crate::random::Stream;
use std::collections::HashMap;

/// Orders of nodes and the sets that they pass through.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The distinct sets, all nodes among them.
    sets: Vec<NodeSet>,
    /// Every order of nodes, each with the position in `sets` of what is zeroed behind each of its steps.
    orders: Vec<Vec<(usize, usize)>>,
    nodes: usize,
}

impl Plan {
    /// `pairs` orders of `nodes` nodes, and their reverses.
    ///
    /// # Errors
    /// [`CausalError::Range`] without pairs, or for a code of no channels or more than 64.
    pub fn new(nodes: usize, pairs: usize, seed: u64) -> Result<Plan, CausalError> {
        if pairs == 0 {
            return Err(CausalError::Range { what: "the number of orders", value: 0.0, range: "at least 1" });
        }
        let none = NodeSet::none(nodes)?;
        let stream = Stream::new(seed, "shapley");
        let (mut sets, mut orders): (Vec<NodeSet>, Vec<Vec<(usize, usize)>>) = (Vec::new(), Vec::new());
        let mut known: HashMap<NodeSet, usize> = HashMap::new();
        for pair in 0..pairs {
            let order: Vec<usize> =
                stream.permutation(pair as u64, nodes as u32).into_iter().map(|node| node as usize).collect();
            let reversed: Vec<usize> = order.iter().rev().copied().collect();
            for order in [order, reversed] {
                let mut zeroed: Vec<usize> = Vec::with_capacity(nodes);
                let mut steps = Vec::with_capacity(nodes);
                for node in order {
                    zeroed.push(node);
                    let set = NodeSet::of(&zeroed, none.channels())?;
                    let at = *known.entry(set).or_insert_with(|| {
                        sets.push(set);
                        sets.len() - 1
                    });
                    steps.push((node, at));
                }
                orders.push(steps);
            }
        }
        Ok(Plan { sets, orders, nodes })
    }

    /// The sets of nodes to zero, in the order in which [`Plan::values`] wants their effects.
    pub fn sets(&self) -> &[NodeSet] {
        &self.sets
    }

    /// Of one image: what each node adds, from the effect of zeroing each set. They add up to the effect of zeroing all.
    ///
    /// # Errors
    /// [`CausalError::Length`] unless there is one effect a set.
    pub fn values(&self, effects: &[f64]) -> Result<Vec<f64>, CausalError> {
        super::same_length("effects (one a set)", self.sets.len(), effects.len())?;
        let mut values = vec![0.0; self.nodes];
        for order in &self.orders {
            let mut before = 0.0;
            for &(node, set) in order {
                values[node] += effects[set] - before;
                before = effects[set];
            }
        }
        values.iter_mut().for_each(|value| *value /= self.orders.len() as f64);
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Effects of a game on all sets of a plan.
    fn played(plan: &Plan, game: impl Fn(&NodeSet) -> f64) -> Vec<f64> {
        plan.values(&plan.sets().iter().map(game).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn values_add_up_to_the_effect_of_all_whatever_the_game() {
        let plan = Plan::new(6, 3, 1).unwrap();
        let game = |set: &NodeSet| ((set.bits() * 37 % 101) as f64).sin();
        let all = NodeSet::all(6).unwrap();
        let sum: f64 = played(&plan, game).iter().sum();
        assert!((sum - game(&all)).abs() < 1e-14, "{sum}");
        // an order and its reverse pass at most twice through five sets and once through all
        assert!(plan.sets().len() <= 3 * 10 + 1 && plan.sets().contains(&all));
    }

    #[test]
    fn of_an_additive_game_every_node_gets_its_own_and_of_twins_each_half() {
        let plan = Plan::new(4, 5, 7).unwrap();
        let own = [0.5, -1.0, 0.0, 2.0];
        let values = played(&plan, |set| set.iter().map(|n| own[n]).sum());
        assert!(values.iter().zip(own).all(|(v, o)| (v - o).abs() < 1e-14), "{values:?}");
        // nodes 0 and 1 do the same work: only without both something is lost. One order and its reverse are enough
        let values =
            played(&Plan::new(4, 1, 3).unwrap(), |set| if set.contains(0) && set.contains(1) { -1.0 } else { 0.0 });
        assert_eq!(values, [-0.5, -0.5, 0.0, 0.0]);
    }

    #[test]
    fn many_orders_come_near_the_mean_over_all_of_them() {
        // three nodes: all six orders by hand
        let game = |set: &NodeSet| [0.0, 1.0, 2.0, 7.0, -1.0, 0.5, 3.0, 4.0][set.bits() as usize];
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        let mut exact = [0.0; 3];
        for order in orders {
            let mut bits = 0usize;
            for node in order {
                let of = |bits: usize| {
                    game(&NodeSet::of(&(0..3).filter(|n| bits >> n & 1 == 1).collect::<Vec<_>>(), 3).unwrap())
                };
                exact[node] += (of(bits | 1 << node) - of(bits)) / 6.0;
                bits |= 1 << node;
            }
        }
        let sampled = played(&Plan::new(3, 2000, 11).unwrap(), game);
        // a step's standard deviation is below 4, of 2000 pairs
        assert!(
            sampled.iter().zip(exact).all(|(s, e)| (s - e).abs() < 4.0 * 4.0 / 2000f64.sqrt()),
            "{sampled:?} {exact:?}"
        );
        assert_eq!(Plan::new(3, 4, 5), Plan::new(3, 4, 5));
        assert_ne!(Plan::new(5, 4, 5), Plan::new(5, 4, 6));
    }

    #[test]
    fn plans_and_effects_are_checked() {
        assert!(Plan::new(4, 0, 0).is_err() && Plan::new(0, 1, 0).is_err() && Plan::new(65, 1, 0).is_err());
        assert!(Plan::new(4, 1, 0).unwrap().values(&[0.0]).is_err());
        let nan = Plan::new(2, 1, 0).unwrap();
        assert!(nan.values(&vec![f64::NAN; nan.sets().len()]).unwrap().iter().all(|v| v.is_nan()));
    }
}
