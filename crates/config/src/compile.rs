//! The seam to the engine: routes and rules are checked by compiling them with the code that runs live.

use engine::pattern::{Pattern, Selector};
use engine::route::{RouteSpec, StoreSpec};
use engine::rule::{Function, RuleSpec};

use crate::document::Document;

/// Reads a function's name.
pub(crate) fn parse_function(word: &str) -> Option<Function> {
    Some(match word {
        "sum" => Function::Sum,
        "count" => Function::Count,
        "min" => Function::Min,
        "max" => Function::Max,
        "avg" => Function::Avg,
        "first" => Function::First,
        "last" => Function::Last,
        "rate" => Function::Rate,
        "stddev" => Function::Stddev,
        "distinct" => Function::Distinct,
        percentile => Function::Percentile(tenths(percentile.strip_prefix('p')?)?),
    })
}

/// `99` is 990, `99.9` and `999` are 999; above 0 and below 1000.
fn tenths(digits: &str) -> Option<u16> {
    let fits = |text: &str| !text.is_empty() && text.len() <= 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    let tenths = match digits.split_once('.') {
        Some((whole, tenth)) if fits(whole) && fits(tenth) && tenth.len() == 1 => {
            format!("{whole}{tenth}").parse().ok()?
        }
        Some(_) => return None,
        None if fits(digits) && digits.len() == 3 => digits.parse().ok()?,
        None if fits(digits) => digits.parse::<u16>().ok()? * 10,
        None => return None,
    };
    (1..1000).contains(&tenths).then_some(tenths)
}

/// Compiles everything and reports what does not compile. `paths`: the key paths of the routes and of the rules.
pub(crate) fn check_compiles(
    document: &Document<'_>,
    routes: &[(String, RouteSpec)],
    rules: &[(String, RuleSpec)],
    _stores: &[StoreSpec],
) {
    let selectors = routes.iter().map(|(path, route)| (path, &route.selector));
    for (path, selector) in selectors.chain(rules.iter().map(|(path, rule)| (path, &rule.selector))) {
        if let Err(error) = Pattern::compile(selector) {
            let key = match selector {
                Selector::Glob(_) => "glob",
                Selector::Regex(_) => "regex",
            };
            document.error(&format!("{path}.{key}"), error.to_string(), "");
        }
    }
}
