//! Any text as a cluster file: no panic, and a file that is taken is shown in a form that is taken as the same cluster.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match config::load("fuzz.toml", text) {
        Ok(loaded) => {
            let shown = loaded.show();
            match config::load("shown.toml", &shown) {
                Ok(again) => assert_eq!(again.cluster, loaded.cluster),
                Err(problems) => panic!("refused what it showed: {problems}\n{shown}"),
            }
        }
        Err(problems) => assert!(!problems.to_string().is_empty(), "a refusal without a reason"),
    }
});
