//! Charts as SVG, drawn with the page's colours, so that they are right in light and dark.

use crate::text::escaped;
use std::fmt::Write;

/// An estimate with its interval on a scale from `lo` to `hi`, with a line at `null`.
pub fn interval(value: Option<f64>, ends: Option<(f64, f64)>, (lo, hi): (f64, f64), null: f64) -> String {
    let (width, height) = (140.0, 14.0);
    let at = |v: f64| ((v - lo) / (hi - lo)).clamp(0.0, 1.0) * width;
    let mut svg = format!("<svg width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\">");
    let zero = at(null);
    let _ = write!(svg, "<line class=\"zero\" x1=\"{zero:.1}\" x2=\"{zero:.1}\" y1=\"0\" y2=\"{height}\"/>");
    if let Some((from, to)) = ends {
        let _ = write!(svg, "<line class=\"interval\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"7\" y2=\"7\"/>", at(from), at(to));
    }
    if let Some(value) = value {
        let _ = write!(svg, "<circle class=\"point\" cx=\"{:.1}\" cy=\"7\" r=\"3\"/>", at(value));
    }
    svg + "</svg>"
}

/// Colours of lines, told apart also by those who do not see red and green (Okabe and Ito).
const LINES: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999"];

/// ROC curves: points of false and true positive rate, each with its name.
pub fn roc(curves: &[(String, Vec<(f64, f64)>)]) -> String {
    let (side, left, top) = (240.0, 44.0, 10.0);
    let (width, height) = (left + side + 230.0, top + side + 40.0);
    let mut svg = format!(
        "<svg width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"ROC curves\">\
         <rect class=\"axis\" x=\"{left}\" y=\"{top}\" width=\"{side}\" height=\"{side}\" fill=\"none\"/>\
         <line class=\"axis\" x1=\"{left}\" y1=\"{}\" x2=\"{}\" y2=\"{top}\"/>",
        top + side,
        left + side
    );
    for tick in [0.0, 0.5, 1.0] {
        let (x, y) = (left + tick * side, top + (1.0 - tick) * side);
        let _ = write!(svg, "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{tick}</text>", top + side + 15.0);
        let _ = write!(svg, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{tick}</text>", left - 6.0, y + 4.0);
    }
    let _ = write!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">false alarms</text>\
         <text x=\"12\" y=\"{}\" text-anchor=\"middle\" transform=\"rotate(-90 12 {})\">attacks found</text>",
        left + side / 2.0,
        top + side + 32.0,
        top + side / 2.0,
        top + side / 2.0
    );
    for (k, (name, points)) in curves.iter().enumerate() {
        let color = LINES[k % LINES.len()];
        let path: Vec<String> = points
            .iter()
            .map(|(fpr, tpr)| format!("{:.1} {:.1}", left + fpr * side, top + (1.0 - tpr) * side))
            .collect();
        let y = top + 14.0 + 18.0 * k as f64;
        let _ = write!(
            svg,
            "<path d=\"M{}\" style=\"stroke:{color}\"/><line x1=\"{}\" x2=\"{}\" y1=\"{}\" y2=\"{}\" style=\"stroke:{color};stroke-width:2\"/>\
             <text x=\"{}\" y=\"{y}\">{}</text>",
            path.join(" L"),
            left + side + 14.0,
            left + side + 32.0,
            y - 4.0,
            y - 4.0,
            left + side + 38.0,
            escaped(name)
        );
    }
    svg + "</svg>"
}

/// The background of a cell with `value` where the largest of the table is `largest`: blue above 0, red below, none at it.
pub fn shade(value: f64, largest: f64) -> String {
    if !(largest > 0.0) || !value.is_finite() {
        return String::new();
    }
    let color = if value < 0.0 { "--neg" } else { "--pos" };
    format!("background:rgba(var({color}),{:.2})", 0.75 * (value.abs() / largest).min(1.0).sqrt())
}
