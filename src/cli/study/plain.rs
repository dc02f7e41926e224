//! A study of clean images alone, for those who want answers or a gate and judge nothing by it.

use super::{Config, MAX_SHIFT};
use crate::attack::Attacked;
use crate::causal::study::{AttackLabel, DoValue};
use crate::cli::common::DataArgs;
use crate::report::effects::Form;
use crate::report::table::Kind;

impl Config {
    /// Every node at 0, by itself, on the clean images of `data`; the rest is as usual and may be set.
    pub fn plain(model: &str, tap: &str, data: &DataArgs) -> Config {
        Config {
            model: model.into(),
            weights: None,
            ae: None,
            further_ae: Vec::new(),
            tap: tap.into(),
            nodes: "all".into(),
            sets: Vec::new(),
            others: None,
            pairs: None,
            shapley: None,
            screen: None,
            refute: None,
            adaptive: None,
            value: DoValue::Zero,
            second_head: None,
            margin: None,
            compat: None,
            inputs: Vec::new(),
            mask_file: None,
            attack_label: AttackLabel::Predicted,
            victim: Attacked::Host,
            limit: None,
            min_agreement: 0.95,
            max_shift: MAX_SHIFT,
            resamples: 1,
            level: 0.95,
            interval: Kind::Percentile,
            effects: Form::default(),
            seed: 0,
            data: data.clone(),
        }
    }
}
