//! Numbers, inputs and verdicts as every section of the page writes them.

use crate::attack::method::change;
use crate::text::escaped;
use serde_json::Value;

/// `Z0`, `FGSM .3`: an input at the head of a column.
pub fn input_name((input, eps): (&str, Option<f64>)) -> String {
    let eps = eps.map_or(String::new(), |eps| format!(" {}", change(eps as f32)));
    match input {
        "none" => "clean".into(),
        "pwm" => "masked".into(),
        other => format!("{}{eps}", other.to_uppercase()),
    }
}

/// `-7.4e-2`: enough for a table that has the interval beside it.
pub fn short(x: f64) -> String {
    match x {
        0.0 => "0".into(),
        x if (0.01..1000.0).contains(&x.abs()) => format!("{x:.3}"),
        x => format!("{x:.2e}"),
    }
}

/// Both ends, where both are known.
pub fn ends(lo: Option<f64>, hi: Option<f64>) -> Option<(f64, f64)> {
    lo.zip(hi)
}

/// `[lo, hi]`; empty where there is no interval.
pub fn bracketed(ends: Option<(f64, f64)>) -> String {
    ends.map_or(String::new(), |(lo, hi)| format!("[{}, {}]", short(lo), short(hi)))
}

/// The ends of a JSON interval.
pub fn json_ends(interval: &Value) -> Option<(f64, f64)> {
    interval["lo"].as_f64().zip(interval["hi"].as_f64())
}

/// A verdict in words, in its colour.
pub fn verdict(word: &str) -> String {
    let told = match word {
        "holds" => "holds",
        "fails" => "fails",
        "none" => "no verdict",
        _ => "undecided",
    };
    format!("<span class=\"verdict {}\">{told}</span>", escaped(word))
}
