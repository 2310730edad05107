//! What a page may order, as it says it. Everything is checked here, before any node is asked.

use config::{Cluster, Layer};
use engine::health::Mode;
use engine::rate;
use serde::Deserialize;

use crate::order::{check_node, lasts};
use crate::watch::Order;

/// One of them, with what belongs to it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Asked {
    /// As on the command line: `50k/s`, `max`.
    rate: Option<String>,
    paused: Option<bool>,
    mode: Option<String>,
    /// Of a mode: `partial`, `final`, or `all`.
    layer: Option<String>,
    /// Of a mode: `30m`.
    #[serde(rename = "for")]
    lasts: Option<String>,
    drain: Option<String>,
    undrain: Option<String>,
}

const ONE: &str = "an order is one of {\"rate\": \"50k/s\"}, {\"paused\": true}, {\"mode\": \"lenient\", \"layer\": \"all\"}, \
                   {\"drain\": \"NODE\"}, {\"undrain\": \"NODE\"}";

/// The order, for this cluster.
///
/// # Errors
/// Says what is wrong with it.
pub(super) fn parse(cluster: &Cluster, body: &[u8]) -> Result<Order, String> {
    let asked: Asked =
        serde_json::from_slice(body).map_err(|error| format!("the order is not JSON of one: {error}"))?;
    let node = |name: String| check_node(cluster, &name).map(|()| name);
    let Asked { rate, paused, mode, layer, lasts: time, drain, undrain } = asked;
    let given = [rate.is_some(), paused.is_some(), mode.is_some(), drain.is_some(), undrain.is_some()];
    if given.into_iter().filter(|given| *given).count() != 1 || mode.is_none() && (layer.is_some() || time.is_some()) {
        return Err(ONE.to_owned());
    }
    if let Some(text) = rate {
        return rate::parse(&text).map(Order::Rate).map_err(|wrong| wrong.to_string());
    }
    if let Some(paused) = paused {
        return Ok(if paused { Order::Pause } else { Order::Resume });
    }
    if let Some(name) = drain {
        return node(name).map(Order::Drain);
    }
    if let Some(name) = undrain {
        return node(name).map(Order::Undrain);
    }
    let (Some(word), Some(layer)) = (mode, layer) else { return Err(ONE.to_owned()) };
    let mode = Mode::parse(&word);
    let mode = mode.ok_or_else(|| format!("\"{word}\" is no mode: there are strict, lenient and auto"))?;
    Ok(Order::Mode { layer: which(&layer)?, mode, lasts: time.as_deref().map(lasts).transpose()? })
}

/// `None`: all layers. Nobody who leaves the layer out finds all of them switched.
fn which(layer: &str) -> Result<Option<String>, String> {
    let pooled = [Layer::Partial, Layer::Final].map(Layer::as_str);
    if layer == "all" {
        Ok(None)
    } else if pooled.contains(&layer) {
        Ok(Some(layer.to_owned()))
    } else {
        Err(format!("\"{layer}\" is no layer that is chosen from: there are {}, and all", pooled.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::parsed;

    #[track_caller]
    fn check(body: &str, expected: Result<&str, &str>) {
        let nodes = [("relay-1", "relay"), ("partial-1", "partial"), ("final-1", "final")];
        let cluster = parsed(nodes.map(|(name, layer)| (name.to_owned(), layer)));
        match (parse(&cluster, body.as_bytes()), expected) {
            (Ok(order), Ok(command)) => assert_eq!(order.command(), format!("spillway {command}"), "{body}"),
            (Err(error), Err(words)) => assert!(error.contains(words), "{body}: {error}"),
            (got, expected) => panic!("{body}: {got:?}, not {expected:?}"),
        }
    }

    #[test]
    fn an_order_is_the_command_that_does_the_same() {
        check(r#"{"rate":"50k/s"}"#, Ok("replay rate 50000/s"));
        check(r#"{"paused":true}"#, Ok("replay pause"));
        check(r#"{"paused":false}"#, Ok("replay resume"));
        check(r#"{"mode":"lenient","layer":"all"}"#, Ok("health mode lenient --all"));
        check(r#"{"mode":"strict","layer":"partial","for":"30m"}"#, Ok("health mode strict --layer partial --for 30m"));
        check(r#"{"mode":"auto","layer":"final","for":"90s"}"#, Ok("health mode auto --layer final --for 90s"));
        check(r#"{"mode":"auto","layer":"final","for":"120m"}"#, Ok("health mode auto --layer final --for 2h"));
        check(r#"{"drain":"partial-1"}"#, Ok("node drain partial-1"));
        check(r#"{"undrain":"final-1"}"#, Ok("node undrain final-1"));
    }

    #[test]
    fn what_is_none_is_refused_with_what_would_be_one() {
        check("{}", Err("an order is one of"));
        check("null", Err("not JSON of one"));
        check(r#"{"canary":3}"#, Err("unknown field"));
        check(r#"{"rate":"5/s","paused":true}"#, Err("an order is one of"));
        check(r#"{"drain":"partial-1","undrain":"partial-1"}"#, Err("an order is one of"));
        check(r#"{"drain":"partial-1","for":"30m"}"#, Err("an order is one of"));
        check(r#"{"mode":"lenient"}"#, Err("an order is one of"));
        check(r#"{"layer":"all"}"#, Err("an order is one of"));
        check(r#"{"mode":"loose","layer":"all"}"#, Err("there are strict, lenient and auto"));
        check(r#"{"mode":"auto","layer":"relay"}"#, Err("there are partial, final, and all"));
        check(r#"{"mode":"auto","layer":"all","for":"soon"}"#, Err("write 30m"));
        check(r#"{"mode":"auto","layer":"all","for":"0s"}"#, Err("write 30m"));
        check(r#"{"drain":"partial-9"}"#, Err("did you mean \"partial-1\"?"));
        check(r#"{"drain":"relay-1"}"#, Err("no partial or final node"));
        check(r#"{"drain":"../replay"}"#, Err("no partial or final node"));
    }
}
