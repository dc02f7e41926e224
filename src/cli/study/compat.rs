//! `--compat icip2019` of a study, as `compat.csv` and in words: which fault of the published arithmetic moves which number.

use super::extra::Study;
use super::input_names;
use crate::atomic::write_atomic;
use crate::causal::claims::LIVE_MIN;
use crate::causal::compat::{Fault, ICIP2019, effects};
use crate::causal::intervention::NodeSet;
use crate::causal::study::{Input, Shard};
use crate::error::Error;
use crate::model::Head;
use crate::report::run::SCHEMA_VERSION;
use std::fmt::Write;

/// Writes `compat.csv`: of every input and set of nodes the effect by right arithmetic (`none`), with each of `faults` alone, and
/// with all of the notebooks' at once (`icip2019`). In words: how large effects of live nodes are under each.
///
/// # Errors
/// [`Error::Write`].
pub(super) fn compat(
    study: &Study<'_>,
    shards: &[Shard],
    inputs: &[Input],
    sets: &[NodeSet],
    faults: &[Fault],
) -> Result<String, Error> {
    let answers = (study.loaded.model.head, study.loaded.model.classes);
    let told_apart = |fault: &&Fault| answers.0 == Head::Sigmoid || **fault != Fault::SoftmaxOverFindings;
    let mut arithmetics: Vec<(&str, &[Fault])> = vec![("none", &[])];
    arithmetics.extend(faults.iter().filter(told_apart).map(|fault| (fault.name(), std::slice::from_ref(fault))));
    arithmetics.push(("icip2019", &ICIP2019));
    let (names, lists): (Vec<&str>, Vec<&[Fault]>) = arithmetics.into_iter().unzip();
    let all: Vec<(&str, Vec<f64>)> = names.into_iter().zip(effects(shards, inputs, sets, answers, &lists)?).collect();

    let labels = study.labels;
    write_atomic(&study.directory.path("compat.csv"), |file| {
        writeln!(file, "schema_version,run_id,arch,tap,node,input,eps,arithmetic,effect")?;
        for (name, effects) in &all {
            for (at, effect) in effects.iter().enumerate() {
                let (input, set) = (&inputs[at / sets.len()], &sets[at % sets.len()]);
                let eps = input.eps().map_or(String::new(), |eps| eps.to_string());
                let value = if effect.is_finite() { format!("{effect:?}") } else { String::new() };
                writeln!(
                    file,
                    "{SCHEMA_VERSION},{},{},{},{},{},{eps},{name},{value}",
                    labels.run_id,
                    labels.arch,
                    labels.tap,
                    labels.node(set),
                    input.name(),
                )?;
            }
        }
        Ok(())
    })?;
    Ok(told(&all, inputs, sets))
}

/// Mean |effect| over live nodes by right arithmetic, what each fault makes of it, and of its ratio to that of clean images, which
/// claims (a) and (b) are about.
fn told(all: &[(&str, Vec<f64>)], inputs: &[Input], sets: &[NodeSet]) -> String {
    let right = &all[0].1;
    let live: Vec<usize> = (0..sets.len()).filter(|&s| sets[s].len() == 1 && right[s].abs() > LIVE_MIN).collect();
    if live.is_empty() {
        return "--compat icip2019: no node has an effect, so no fault moves one.\n".into();
    }
    let size = |effects: &[f64], input: usize| {
        live.iter().map(|s| effects[input * sets.len() + s].abs()).sum::<f64>() / live.len() as f64
    };
    let mut text = format!(
        "--compat icip2019: mean |effect| over {} live nodes by right arithmetic, and with each fault of the published notebooks, under\n\
         the sign of their mean effect; in brackets its ratio to that of clean images by the same arithmetic, which claims (a) and (b)\n\
         are about.\n",
        live.len()
    );
    let wide = all.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    let names = input_names(inputs);
    let _ = write!(text, "{:<wide$}", "");
    names.iter().enumerate().for_each(|(k, name)| {
        let _ = write!(text, "{:<19}", if k == 0 { "clean" } else { name });
    });
    text.truncate(text.trim_end().len());
    text.push('\n');
    for (name, effects) in all {
        let _ = write!(text, "{name:<wide$}");
        for k in 0..inputs.len() {
            let ratio = if k == 0 { String::new() } else { format!(" ({:.3})", size(effects, k) / size(effects, 0)) };
            let signed = live.iter().map(|s| effects[k * sets.len() + s]).sum::<f64>();
            let sign = if signed < 0.0 { '-' } else { '+' };
            let _ = write!(text, "{:<19}", format!("{sign}{:.1e}{ratio}", size(effects, k)));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}
