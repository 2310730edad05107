use super::*;

const EXAMPLE: &str = include_str!("tests/example.toml");
#[test]
fn x() {
    match load("example.toml", EXAMPLE) {
        Ok(l) => println!("{}\n{}", l.show(), l.warnings.excerpts(false)),
        Err(p) => panic!("{}{}", p.plain(), p.excerpts(false)),
    }
    let bad = EXAMPLE
        .replace("lingr", "x")
        .replace("linger =", "lingr =")
        .replace("\"100ms\"", "5")
        .replace("\"carbon\"]", "\"carbno\"]")
        .replace("8652", "8651")
        .replace("50%", "150%")
        .replace("p99", "q99")
        .replace("web.*.requests", "web.{a")
        .replace("ack_timeout = \"3s\"", "ack_timeout = \"400ms\"");
    let p = load("bad.toml", &bad).unwrap_err();
    println!("{}{}", p.plain(), p.excerpts(false));
}
