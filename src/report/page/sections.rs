//! The sections of the page. Each is a text of HTML, empty where the run has nothing for it.

use super::chart;
use super::files::{Cell, Effect, Run, node_number};
use crate::attack::method::change;
use crate::report::breakdown::FEW;
use crate::report::effects::{CSV, PARQUET};
use crate::report::gallery::sheet_name;
use crate::text::escaped;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::collections::HashMap;
use std::fmt::Write;

/// Classes beside each other in the matrix: of more, those with the largest effects.
const CLASSES: usize = 20;
/// Curves in one plot.
const CURVES: usize = 7;

/// `Z0`, `FGSM .3`: an input at the head of a column.
fn input_name((input, eps): (&str, Option<f64>)) -> String {
    let eps = eps.map_or(String::new(), |eps| format!(" {}", change(eps as f32)));
    match input {
        "none" => "clean".into(),
        "pwm" => "masked".into(),
        other => format!("{}{eps}", other.to_uppercase()),
    }
}

/// `-7.4e-2`: enough for a table that has the interval beside it.
fn short(x: f64) -> String {
    match x {
        0.0 => "0".into(),
        x if (0.01..1000.0).contains(&x.abs()) => format!("{x:.3}"),
        x => format!("{x:.2e}"),
    }
}

fn ends(lo: Option<f64>, hi: Option<f64>) -> Option<(f64, f64)> {
    lo.zip(hi)
}

fn bracketed(ends: Option<(f64, f64)>) -> String {
    ends.map_or(String::new(), |(lo, hi)| format!("[{}, {}]", short(lo), short(hi)))
}

/// `[lo, hi]` of a JSON interval.
fn json_ends(interval: &Value) -> Option<(f64, f64)> {
    interval["lo"].as_f64().zip(interval["hi"].as_f64())
}

fn verdict(word: &str) -> String {
    let told = match word {
        "holds" => "holds",
        "fails" => "fails",
        "none" => "no verdict",
        _ => "undecided",
    };
    format!("<span class=\"verdict {}\">{told}</span>", escaped(word))
}

pub fn head(run: &Run, title: &str) -> String {
    let images = run.effects.iter().map(|row| row.n).max().unwrap_or(0);
    let strongest = run.strongest().map_or(String::new(), |row| {
        let size = format!("{} {}", short(row.mean.unwrap_or(f64::NAN)), bracketed(ends(row.ci_lo, row.ci_hi)));
        format!(
            " The strongest is node {}: setting it to 0 changes the class-weighted probability of the answer by {size} on average.",
            escaped(node_number(&row.node))
        )
    });
    format!(
        "<header>\n<h1>{}</h1>\n<p class=\"faint\">Run <code>{}</code> of <code>intervene {}</code> {}, seed {}.</p>\n\
         <p>A node is a channel of an autoencoder that is inserted into the network. Each of {} nodes was set to 0, on each of \
         {images} images under each of {} inputs, and the answers were compared with those of the untouched network.{strongest}</p>\n\
         </header>\n",
        escaped(title),
        escaped(&run.manifest.run_id),
        escaped(&run.manifest.verb),
        escaped(&run.manifest.version),
        run.manifest.configuration["seed"]
            .as_u64()
            .or(run.manifest.configuration["study"]["seed"].as_u64())
            .unwrap_or(0),
        run.singles().count(),
        run.inputs().len(),
    )
}

pub fn warnings(run: &Run) -> String {
    let mut all: Vec<String> = run.manifest.warnings.clone();
    let found = run.detector.as_ref().and_then(|detector| detector["warnings"].as_array()).map_or(0, Vec::len);
    if found > 0 {
        all.push(format!(
            "{found} cautions stand with the detectors below: which turn over, and which find harmless noise"
        ));
    }
    all.push("intervals cover the sampling of images only; another autoencoder has other nodes, and its effects may differ more".into());
    let items: String = all.iter().map(|told| format!("<li>{}</li>", escaped(told))).collect();
    format!("<section class=\"warnings\"><b>Before you believe a number</b><ul>{items}</ul></section>\n")
}

pub fn claims(run: &Run) -> String {
    let Some(claims) = &run.claims else { return String::new() };
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
    let mut text = format!(
        "<section>\n<h2>The paper's claims</h2>\n<p>The ratio is the mean over live nodes of |effect| under the changed input, to \
         that on the clean one: below 1 the claimed fall is there. Beside it is what is left at the clean mix of confidence, and \
         what a second softmax, as the paper's released code applies it on the changed row alone, would make of the same \
         numbers.</p>\n<div class=\"scroll\"><table><thead><tr><th>claim</th><th>input</th><th>verdict</th><th>ratio to clean</th>\
         <th>0 to 3, line at 1</th><th>at the clean confidence</th><th>with a double softmax</th></tr></thead><tbody>{rows}</tbody>\
         </table></div>\n"
    );
    if let Some(rivals) = claims["most_negative"]["rivals"].as_array().filter(|rivals| !rivals.is_empty()) {
        let _ = write!(
            text,
            "<p>(c) of the attacks, FGSM makes effects most negative: {}. Mean effect under FGSM less that under ",
            verdict(claims["most_negative"]["verdict"].as_str().unwrap_or_default())
        );
        let each = rivals.iter().map(|rival| {
            let value = rival["difference"].as_f64().map_or("-".into(), short);
            let name = escaped(rival["condition"].as_str().unwrap_or_default());
            let (lower, higher) = (&rival["lower"], &rival["higher"]);
            let interval = bracketed(json_ends(&rival["interval"]));
            format!("{name}: {value} {interval} (lower at {lower} live nodes, higher at {higher})")
        });
        text += &(each.collect::<Vec<_>>().join("; ") + ".</p>\n");
    }
    if let Some(detector) = &run.detector {
        let _ = writeln!(
            text,
            "<p>(d) effects part attacked images from clean ones, better than the network's confidence does: {} \
             (see <a href=\"#detector\">the detector</a>).</p>",
            verdict(detector["claim"]["verdict"].as_str().unwrap_or_default())
        );
    }
    text + "<p class=\"faint\">(e), that causal effect maps are more sensitive to attacks than class activation maps, is measured by \
            <code>intervene map</code>.</p>\n</section>\n"
}

pub fn nodes(run: &Run) -> String {
    let Some(gallery) = &run.gallery else { return String::new() };
    let (mut cards, mut dead) = (String::new(), Vec::new());
    for sheet in &gallery.sheets {
        // its name becomes a file's
        if sheet.node.parse::<usize>().is_err() {
            continue;
        }
        if sheet.live_share == 0.0 {
            dead.push(escaped(&sheet.node));
            continue;
        }
        let Ok(png) = std::fs::read(run.directory.join(sheet_name(&sheet.node))) else { continue };
        let effect = run.singles().find(|name| node_number(name) == sheet.node);
        let effect = effect.and_then(|node| run.effect(node, ("none", None)));
        let told = effect.map_or(String::new(), |row| {
            format!(", effect {} {}", short(row.mean.unwrap_or(f64::NAN)), bracketed(ends(row.ci_lo, row.ci_hi)))
        });
        let _ = writeln!(
            cards,
            "<figure><figcaption><b>Node {}</b>: live on {:.1} % of images{told}</figcaption>\
             <img alt=\"Mean map and strongest images of node {}\" src=\"data:image/png;base64,{}\"></figure>",
            escaped(&sheet.node),
            100.0 * sheet.live_share,
            escaped(&sheet.node),
            STANDARD.encode(png)
        );
    }
    let dead = match dead.len() {
        0 => String::new(),
        1 => format!(" Node {} is 0 on every image: it is dead, and stands for nothing.", dead[0]),
        _ => format!(" Nodes {} are 0 on every image: they are dead, and stand for nothing.", dead.join(", ")),
    };
    format!(
        "<section>\n<h2>What the nodes are</h2>\n<p>Top left of each: where the node is active on average (dark: strongly). Beside it, \
         the {} images that excite it most, each with a frame around the place that does. Below: the images on which setting it \
         to 0 changes the answer most.{dead}</p>\n<div class=\"cards\">{cards}</div>\n</section>\n",
        crate::report::gallery::SHOWN
    )
}

pub fn effects(run: &Run) -> String {
    let (inputs, nodes) = (run.inputs(), run.nodes());
    let rows = nodes.iter().flat_map(|node| inputs.iter().filter_map(|input| run.effect(node, *input)));
    let edge = |row: &Effect| [row.ci_lo, row.ci_hi].into_iter().flatten().fold(0.0f64, |m, v| m.max(v.abs()));
    let largest = rows.map(edge).fold(1e-12, f64::max);
    let heads: String =
        inputs.iter().map(|input| format!("<th colspan=\"2\">{}</th>", escaped(&input_name(*input)))).collect();
    let mut body = String::new();
    for node in &nodes {
        let dead = run.effect(node, ("none", None)).is_some_and(|row| row.live_share == Some(0.0));
        let _ =
            write!(body, "<tr{}><td>{}</td>", if dead { " class=\"dead\"" } else { "" }, escaped(node_number(node)));
        for input in &inputs {
            match run.effect(node, *input) {
                None => body.push_str("<td></td><td></td>"),
                Some(row) => {
                    let ends = ends(row.ci_lo, row.ci_hi);
                    let tip = format!(
                        "median {}, n {}, p {} after Holm",
                        row.median.map_or("-".into(), short),
                        row.n,
                        row.p_adj.map_or("-".into(), short)
                    );
                    let _ = write!(
                        body,
                        "<td title=\"{}\">{} <small>{}</small></td><td>{}</td>",
                        escaped(&tip),
                        row.mean.map_or("not a number".into(), short),
                        bracketed(ends),
                        chart::interval(row.mean, ends, (-largest, largest), 0.0)
                    );
                }
            }
        }
        body.push_str("</tr>\n");
    }
    format!(
        "<section>\n<h2>Expected causal effects</h2>\n<p>Mean over images of sum<sub>c</sub> p<sub>c</sub> (q<sub>c</sub> &minus; \
         p<sub>c</sub>) for a softmax (mean of (2p &minus; 1)(q &minus; p) over findings), p the answer with the autoencoder idle \
         and q with the node set to 0, both under the input of the column: clean, or reading R1. Negative: without the node the \
         network is less sure of what it said. Bars go from {} to {}. Grey rows are dead: 0 on every image, effect exactly 0.</p>\n\
         <div class=\"scroll\"><table><thead><tr><th>node</th>{heads}</tr></thead><tbody>{body}</tbody></table></div>\n</section>\n",
        short(-largest),
        short(largest)
    )
}

pub fn matrix(run: &Run) -> String {
    let clean: Vec<&Cell> = run.cells.iter().filter(|cell| cell.input == "none").collect();
    if clean.is_empty() {
        return String::new();
    }
    let mut classes: Vec<(usize, &str, f64)> = Vec::new();
    for cell in &clean {
        let size = cell.effect.unwrap_or(0.0).abs();
        match classes.iter_mut().find(|(class, ..)| *class == cell.class) {
            Some((_, _, largest)) => *largest = largest.max(size),
            None => classes.push((cell.class, &cell.class_name, size)),
        }
    }
    let all = classes.len();
    classes.sort_by(|a, b| b.2.total_cmp(&a.2).then(a.0.cmp(&b.0)));
    classes.truncate(CLASSES);
    classes.sort_by_key(|(class, ..)| *class);
    let largest = classes.iter().fold(0.0f64, |m, c| m.max(c.2));
    let head: String = classes
        .iter()
        .map(|(class, name, _)| format!("<th>{}</th>", if name.is_empty() { class.to_string() } else { escaped(name) }))
        .collect();
    let at: HashMap<(&str, usize), &Cell> = clean.iter().map(|cell| ((&*cell.node, cell.class), *cell)).collect();
    let mut body = String::new();
    for node in run.nodes() {
        let _ = write!(body, "<tr><td>{}</td>", escaped(node_number(node)));
        for (class, ..) in &classes {
            let Some(cell) = at.get(&(node, *class)) else {
                body.push_str("<td></td>");
                continue;
            };
            let value = cell.effect.unwrap_or(f64::NAN);
            let tip = format!("{value:e} {}", bracketed(ends(cell.ci_lo, cell.ci_hi)));
            let shown = if value.abs() < 5e-5 { "0".into() } else { format!("{value:+.4}") };
            let _ =
                write!(body, "<td style=\"{}\" title=\"{}\">{shown}</td>", chart::shade(value, largest), escaped(&tip));
        }
        body.push_str("</tr>\n");
    }
    let left = if all > classes.len() {
        format!(
            " Of {all} classes these are the {} with the largest effects; effect_matrix.csv has all.",
            classes.len()
        )
    } else {
        String::new()
    };
    format!(
        "<section>\n<h2>Which node moves which answer</h2>\n<p>Mean change of each probability when the node is set to 0, on clean \
         images: red falls, blue rises.{left}</p>\n<div class=\"scroll\"><table><thead><tr><th>node</th>{head}</tr></thead>\
         <tbody>{body}</tbody></table></div>\n</section>\n"
    )
}

pub fn detector(run: &Run) -> String {
    let Some(detector) = &run.detector else { return String::new() };
    // single nodes' are in the file; the best of them, chosen on other images, is here
    let node = |statistic: &str| statistic.strip_prefix("ece-").is_some_and(|rest| rest.parse::<usize>().is_ok());
    let whole = |row: &&Value| !node(row["statistic"].as_str().unwrap_or_default());
    let rows: Vec<&Value> = detector["statistics"].as_array().into_iter().flatten().filter(whole).collect();
    let mut inputs: Vec<&str> = Vec::new();
    for row in &rows {
        let input = row["input"].as_str().unwrap_or_default();
        if !inputs.contains(&input) {
            inputs.push(input);
        }
    }
    let mut statistics: Vec<(&str, &str)> = Vec::new();
    for row in &rows {
        let statistic = (row["statistic"].as_str().unwrap_or_default(), row["family"].as_str().unwrap_or_default());
        if !statistics.contains(&statistic) {
            statistics.push(statistic);
        }
    }
    let of =
        |statistic: &str, input: &str| rows.iter().find(|row| row["statistic"] == statistic && row["input"] == input);
    let head: String = inputs.iter().map(|input| format!("<th>{}</th>", escaped(input))).collect();
    let mut body = String::new();
    for (statistic, family) in &statistics {
        let _ = write!(body, "<tr><td>{}</td><td>{}</td>", escaped(statistic), escaped(family));
        for input in &inputs {
            let Some(row) = of(statistic, input) else {
                body.push_str("<td></td>");
                continue;
            };
            let area = row["auroc"].as_f64();
            let few = if row["judged"] == Value::Bool(false) { " few" } else { "" };
            let tip = format!(
                "{} attacked, {} clean; average precision {}",
                row["n_pos"],
                row["n_neg"],
                row["average_precision"].as_f64().map_or("-".into(), short)
            );
            let _ = write!(
                body,
                "<td style=\"{}\" title=\"{}\">{} <small>{}{few}</small></td>",
                area.map_or(String::new(), |a| chart::shade(a - 0.5, 0.5)),
                escaped(&tip),
                area.map_or("-".into(), |a| format!("{a:.3}")),
                bracketed(json_ends(&row["interval"])),
            );
        }
        body.push_str("</tr>\n");
    }
    let mut plots = String::new();
    for input in &inputs {
        let mut curves: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
        for (statistic, _) in &statistics {
            let curve = of(statistic, input).and_then(|row| row["curve"].as_array());
            let points: Vec<(f64, f64)> =
                curve.into_iter().flatten().filter_map(|p| p[0].as_f64().zip(p[1].as_f64())).collect();
            if points.len() > 1 && curves.len() < CURVES {
                curves.push(((*statistic).to_string(), points));
            }
        }
        if !curves.is_empty() {
            let _ = writeln!(
                plots,
                "<figure><figcaption><b>{}</b></figcaption>{}</figure>",
                escaped(input),
                chart::roc(&curves)
            );
        }
    }
    let told = detector["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let cautions: String = told.map(|told| format!("<li>{}</li>", escaped(told))).collect();
    format!(
        "<section id=\"detector\">\n<h2>Effects as a detector of attacks</h2>\n<p>Area under the ROC curve, clean images that the network \
         gets right against successful attacks on them; .5 is chance, blue above and red below it: a statistic that moves the \
         other way under another attack cannot be used without knowing the attack. Controls (masking, noise) have no adversary: a \
         statistic that finds them finds change, not attack.</p>\n<div class=\"scroll\"><table><thead><tr><th>statistic</th>\
         <th>family</th>{head}</tr></thead><tbody>{body}</tbody></table></div>\n<details><summary>ROC curves</summary>\
         <div class=\"cards\">{plots}</div></details>\n<details><summary>Cautions</summary><ul>{cautions}</ul></details>\n</section>\n"
    )
}

pub fn strata(run: &Run) -> String {
    let Some(strongest) = run.strongest() else { return String::new() };
    let rows: Vec<_> = run.strata.iter().filter(|row| row.input == "none" && row.node == strongest.node).collect();
    if rows.is_empty() {
        return String::new();
    }
    let edge = rows.iter().flat_map(|row| [row.ci_lo, row.ci_hi]).flatten().fold(1e-12f64, |m, v| m.max(v.abs()));
    let body: String = rows
        .iter()
        .map(|row| {
            let ends = ends(row.ci_lo, row.ci_hi);
            format!(
                "<tr{}><td>{}</td><td>{}</td><td>{} <small>{}</small></td><td>{}</td><td>{}</td></tr>\n",
                if row.n < FEW { " class=\"dead\"" } else { "" },
                escaped(&row.by),
                escaped(&row.value),
                row.ece.map_or("-".into(), short),
                bracketed(ends),
                chart::interval(row.ece, ends, (-edge, edge), 0.0),
                row.n
            )
        })
        .collect();
    format!(
        "<section>\n<h2>On which images</h2>\n<p>The effect of the strongest node, {}, on clean images of each kind (strata.csv has all \
         nodes and inputs). Grey: fewer than 30 images, no ground for a verdict.</p>\n<div class=\"scroll\"><table><thead><tr>\
         <th>by</th><th>value</th><th>effect</th><th></th><th>n</th></tr></thead><tbody>{body}</tbody></table></div>\n</section>\n",
        escaped(node_number(&strongest.node))
    )
}

pub fn measured(run: &Run) -> String {
    let m = &run.manifest;
    let mut rows: Vec<(String, String)> = vec![
        ("network".into(), run.arch().to_string()),
        ("autoencoder behind".into(), run.tap().to_string()),
        ("device".into(), format!("{}{}", m.device, if m.simulated { " (simulated)" } else { "" })),
    ];
    let results = ["gate_agreement", "gate_shift", "numerical_floor"];
    let told = [
        "autoencoder-inserted net agrees with its host",
        "mean change of a finding by the autoencoder",
        "largest difference from the f64 reference",
    ];
    for (key, told) in results.iter().zip(told) {
        if let Some(value) = m.results.get(*key).and_then(Value::as_f64) {
            rows.push((told.into(), short(value)));
        }
    }
    rows.extend(m.hashes.iter().map(|(name, hash)| (format!("SHA-256 of {name}"), hash.clone())));
    let body: String = rows
        .iter()
        .map(|(name, value)| format!("<tr><td>{}</td><td>{}</td></tr>\n", escaped(name), escaped(value)))
        .collect();
    let configuration = serde_json::to_string_pretty(&m.configuration).unwrap_or_default();
    format!(
        "<section>\n<h2>What was run</h2>\n<div class=\"scroll\"><table><tbody>{body}</tbody></table></div>\n<details><summary>Configuration\
         </summary><div class=\"scroll\"><pre>{}</pre></div></details>\n</section>\n",
        escaped(&configuration)
    )
}

pub fn reading(run: &Run) -> String {
    let told = "a row an image, node and input: probabilities, effects, the autoencoder's own part";
    let tables = [PARQUET, CSV].into_iter().filter(|name| run.directory.join(name).exists()).map(|name| (name, told));
    let files = [
        (
            "summary.csv",
            "means over images with bootstrap intervals, every reading (Z0, R1 to R6) and estimand, p before and after Holm",
        ),
        ("effect_matrix.csv", "every node on every class"),
        ("strata.csv", "every node on every kind of image"),
        ("claims.json", "the verdicts with every number behind them"),
        ("detector.json", "detectors as they were fitted, and what they find"),
        ("outcomes/", "every potential outcome as logits: all of the above can be made from it again"),
    ];
    let items: String =
        tables.chain(files).map(|(name, told)| format!("<li><code>{name}</code>: {}</li>", escaped(told))).collect();
    format!(
        "<section>\n<h2>The files beside this page</h2>\n<ul>{items}</ul>\n<p class=\"faint\">The method is that of Yang et al., \
         &ldquo;When Causal Intervention Meets Adversarial Examples and Image Masking for Deep Neural Networks&rdquo;, ICIP 2019, with \
         do minus idle as the sign of effects. <code>intervene report DIR</code> makes this page again.</p>\n</section>\n"
    )
}
