//! The section of the paper's claims: (a) to (c) of a sweep, (d) of its detector, and every other that a part of the run judged and
//! left as `claim-<letter>.json`.

use super::chart;
use super::files::Run;
use super::shown::{bracketed, json_ends, short, verdict};
use crate::report::claim::{ClaimFile, Judged};
use crate::text::escaped;
use serde_json::Value;
use std::fmt::Write;

/// The section; empty where the run judges nothing.
pub fn claims(run: &Run) -> String {
    let mut body: String = [
        run.claims.as_ref().map_or(String::new(), ratios),
        run.claims.as_ref().map_or(String::new(), most_negative),
        run.detector.as_ref().map_or(String::new(), detected),
    ]
    .concat();
    body.extend(run.judged.iter().map(further));
    if body.is_empty() {
        return body;
    }
    if run.judged.iter().all(|claim| claim.claim != 'e') {
        body += "<p class=\"faint\">(e), that causal effect maps are more sensitive to attacks than class activation maps, is measured by \
                 <code>intervene map</code>.</p>\n";
    }
    format!("<section>\n<h2>The paper's claims</h2>\n{body}</section>\n")
}

/// (a), (b) and the control: what becomes of effects.
fn ratios(claims: &Value) -> String {
    let mut rows = String::new();
    let range = (0.0, 3.0);
    for judged in claims["claims"].as_array().into_iter().flatten() {
        let text = match judged["claim"].as_str() {
            Some("a") => "(a) effects fall when pixels are masked",
            Some("b") => "(b) effects fall under attack",
            _ => "control: harmless noise",
        };
        let ratio = |of: &Value| {
            let (value, ends) = (of["value"].as_f64(), json_ends(&of["interval"]));
            (value.map_or("-".into(), |v| format!("{v:.2}")), bracketed(ends), chart::interval(value, ends, range, 1.0))
        };
        let (value, interval, svg) = ratio(&judged["comparison"]["ratio"]);
        let (matched, matched_interval, _) = ratio(&judged["matched"]["ratio"]);
        let artefact = judged["double_softmax"]["ratio"]["value"].as_f64().map_or("-".into(), |v| format!("{v:.3}"));
        let _ = write!(
            rows,
            "<tr><td>{text}</td><td>{}</td><td>{}</td><td>{value} {interval}</td><td>{svg}</td><td>{matched} {matched_interval}</td>\
             <td>{artefact}</td></tr>",
            escaped(judged["condition"].as_str().unwrap_or_default()),
            match (judged["claim"].as_str(), judged["verdict"].as_str().unwrap_or_default()) {
                (Some("a" | "b"), word) => verdict(word),
                // nobody claims anything of noise
                (_, "holds") => "they fall".into(),
                (_, "fails") => "they rise".into(),
                _ => "no change seen".into(),
            },
        );
    }
    format!(
        "<p>The ratio is the mean over live nodes of |effect| under the changed input, to \
         that on the clean one: below 1 the claimed fall is there. Beside it is what is left at the clean mix of confidence, and \
         what a second softmax, as the paper's released code applies it on the changed row alone, would make of the same \
         numbers.</p>\n<div class=\"scroll\"><table><thead><tr><th>claim</th><th>input</th><th>verdict</th><th>ratio to clean</th>\
         <th>0 to 3, line at 1</th><th>at the clean confidence</th><th>with a double softmax</th></tr></thead><tbody>{rows}</tbody>\
         </table></div>\n"
    )
}

/// (c), where there are attacks to compare.
fn most_negative(claims: &Value) -> String {
    let judged = &claims["most_negative"];
    let Some(rivals) = judged["rivals"].as_array().filter(|rivals| !rivals.is_empty()) else { return String::new() };
    let each = rivals.iter().map(|rival| {
        let value = rival["difference"].as_f64().map_or("-".into(), short);
        let name = escaped(rival["condition"].as_str().unwrap_or_default());
        let (lower, higher) = (&rival["lower"], &rival["higher"]);
        let interval = bracketed(json_ends(&rival["interval"]));
        format!("{name}: {value} {interval} (lower at {lower} live nodes, higher at {higher})")
    });
    format!(
        "<p>(c) of the attacks, FGSM makes effects most negative: {}. Mean effect under FGSM less that under {}.</p>\n",
        verdict(judged["verdict"].as_str().unwrap_or_default()),
        each.collect::<Vec<_>>().join("; ")
    )
}

/// (d).
fn detected(detector: &Value) -> String {
    format!(
        "<p>(d) effects part attacked images from clean ones, better than the network's confidence does: {} \
         (see <a href=\"#detector\">the detector</a>).</p>\n",
        verdict(detector["claim"]["verdict"].as_str().unwrap_or_default())
    )
}

/// A claim that has a file of its own.
fn further(claim: &ClaimFile) -> String {
    let edge = |judged: &Judged| {
        let ends = judged.interval.map_or([0.0; 2], |i| [i.lo, i.hi]);
        ends.into_iter().chain(judged.value).fold(0.0f64, |m, v| m.max(v.abs()))
    };
    let largest = claim.judged.iter().map(edge).fold(1e-12, f64::max);
    let (mut rows, mut reasons) = (String::new(), String::new());
    for judged in &claim.judged {
        let ends = judged.interval.map(|i| (i.lo, i.hi));
        let condition = escaped(&judged.condition);
        // below the table: sentences in a column are a strip of words on a phone
        // nobody claims anything of a control
        let word = if judged.verdict == "none" { String::new() } else { verdict(&judged.verdict) };
        let because = if word.is_empty() { String::new() } else { format!("{word}. ") };
        let _ = writeln!(reasons, "<li><b>{condition}</b>: {because}{}</li>", escaped(&judged.reason));
        let _ = writeln!(
            rows,
            "<tr><td>{condition}</td><td>{word}</td><td>{} <small>{}</small></td><td>{}</td></tr>",
            judged.value.map_or("-".into(), short),
            bracketed(ends),
            chart::interval(judged.value, ends, (-largest, largest), 0.0)
        );
    }
    let notes: String = claim.notes.iter().map(|note| format!("<p class=\"faint\">{}</p>\n", escaped(note))).collect();
    format!(
        "<h3>({}) {}</h3>\n<p>The number is {}.</p>\n<div class=\"scroll\"><table><thead><tr><th>condition</th><th>verdict</th>\
         <th>the number</th><th>{} to {}, line at 0</th></tr></thead><tbody>{rows}</tbody></table></div>\n<ul>\n{reasons}</ul>\n{notes}",
        claim.claim,
        escaped(&claim.told),
        escaped(&claim.quantity),
        short(-largest),
        short(largest)
    )
}
