//! The sections of the page. Each is a text of HTML, empty where the run has nothing for it.

use super::chart;
use super::files::{Cell, Effect, Run, node_number};
use super::shown::{bracketed, ends, input_name, json_ends, short};
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

/// What is studied, and the strongest node in words.
pub fn head(run: &Run, title: &str) -> String {
    let seed = &run.manifest.configuration["seed"];
    let seed = seed.as_u64().or(run.manifest.configuration["study"]["seed"].as_u64()).unwrap_or(0);
    let told = if run.effects.is_empty() { String::new() } else { intervened(run) };
    format!(
        "<header>\n<h1>{}</h1>\n<p class=\"faint\">Run <code>{}</code> of <code>intervene {}</code> {}, seed {seed}.</p>\n{told}</header>\n",
        escaped(title),
        escaped(&run.manifest.run_id),
        escaped(&run.manifest.verb),
        escaped(&run.manifest.version),
    )
}

/// What was done to nodes, and what the strongest does.
fn intervened(run: &Run) -> String {
    let images = run.effects.iter().map(|row| row.n).max().unwrap_or(0);
    let strongest = run.strongest().map_or(String::new(), |row| {
        let size = format!("{} {}", short(row.mean.unwrap_or(f64::NAN)), bracketed(ends(row.ci_lo, row.ci_hi)));
        format!(
            " The strongest is node {}: setting it to {} changes the class-weighted probability of the answer by {size} on average.",
            escaped(node_number(&row.node)),
            run.set_to()
        )
    });
    format!(
        "<p>A node is a channel of an autoencoder that is inserted into the network. Each of {} nodes was set to {}, on each of \
         {images} images under each of {} inputs, and the answers were compared with those of the same network with the node left \
         alone (idle).{strongest}</p>\n",
        run.singles().count(),
        run.set_to(),
        run.inputs().len(),
    )
}

/// What stands before every number.
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
         to {} changes the answer most.{dead}</p>\n<div class=\"cards\">{cards}</div>\n</section>\n",
        crate::report::gallery::SHOWN,
        run.set_to()
    )
}

pub fn effects(run: &Run) -> String {
    if run.effects.is_empty() {
        return String::new();
    }
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
         and q with the node set to {}, both under the input of the column: clean, or reading R1. Negative: without the node the \
         network is less sure of what it said. Bars go from {} to {}. Grey rows are dead: 0 on every image, effect exactly 0.</p>\n\
         <div class=\"scroll\"><table><thead><tr><th>node</th>{heads}</tr></thead><tbody>{body}</tbody></table></div>\n</section>\n",
        run.set_to(),
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
        "<section>\n<h2>Which node moves which answer</h2>\n<p>Mean change of each probability when the node is set to {}, on clean \
         images: red falls, blue rises.{left}</p>\n<div class=\"scroll\"><table><thead><tr><th>node</th>{head}</tr></thead>\
         <tbody>{body}</tbody></table></div>\n</section>\n",
        run.set_to()
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
    let known = detector["adaptive"].as_array().into_iter().flatten().filter_map(|one| one["words"].as_str());
    let known: String = known.map(|words| format!("<p>{}</p>\n", escaped(words))).collect();
    let told = detector["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let cautions: String = told.map(|told| format!("<li>{}</li>", escaped(told))).collect();
    format!(
        "<section id=\"detector\">\n<h2>Effects as a detector of attacks</h2>\n<p>Area under the ROC curve, clean images that the network \
         gets right against successful attacks on them; .5 is chance, blue above and red below it: a statistic that moves the \
         other way under another attack cannot be used without knowing the attack. Controls (masking, noise) have no adversary: a \
         statistic that finds them finds change, not attack.</p>\n<div class=\"scroll\"><table><thead><tr><th>statistic</th>\
         <th>family</th>{head}</tr></thead><tbody>{body}</tbody></table></div>\n{known}<details><summary>ROC curves</summary>\
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
    // a run of maps alone may have none
    rows.retain(|(_, value)| !value.is_empty());
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
    let files = [
        (PARQUET, told),
        (CSV, told),
        (
            "summary.csv",
            "means over images with bootstrap intervals, every reading (Z0, R1 to R6) and estimand, p before and after Holm",
        ),
        ("effect_matrix.csv", "every node on every class"),
        ("strata.csv", "every node on every kind of image"),
        ("claims.json", "the verdicts with every number behind them"),
        ("compat.csv", "the arithmetic of the published notebooks, fault by fault"),
        ("refuters.csv", "nodes before placebos"),
        (
            "conditions.csv",
            "conditions II (a known symptom masked) and III (two tasks): every quantity, and whether it is as good as 0",
        ),
        ("detector.json", "detectors as they were fitted, and what they find"),
        ("screen.csv", "first-order effects of nodes"),
        ("shapley.csv", "Shapley values of nodes"),
        ("interactions.csv", "pairs of nodes"),
        ("maps.csv", "a row a map"),
        ("stability.csv", "how far each input moves the maps of each method, by three measures"),
        ("faithfulness.csv", "deletion and insertion curves, and average drops"),
        ("pointing.csv", "whether maps point into the boxes of findings"),
        ("claim-e.json", "the verdict on causal effect maps, with what it rests on"),
        (
            "maps",
            "maps as float32 .npy, at their own size and signed, and as pictures; in a reproduction a run of maps",
        ),
        ("outcomes/", "every potential outcome as logits: all of the above can be made from it again"),
    ];
    let there = files.iter().filter(|(name, _)| run.directory.join(name).exists());
    let items: String = there.map(|(name, told)| format!("<li><code>{name}</code>: {}</li>", escaped(told))).collect();
    format!(
        "<section>\n<h2>The files beside this page</h2>\n<ul>{items}</ul>\n<p class=\"faint\">The method is that of Yang et al., \
         &ldquo;When Causal Intervention Meets Adversarial Examples and Image Masking for Deep Neural Networks&rdquo;, ICIP 2019, with \
         do minus idle as the sign of effects. <code>intervene report DIR</code> makes this page again.</p>\n</section>\n"
    )
}
