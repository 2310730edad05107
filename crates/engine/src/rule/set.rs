//! All rules of a cluster, compiled.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::Xxh3Default;

use super::template::{self, Piece, Template};
use super::{Function, OutputKey, RuleId, RuleSpec};
use crate::partial::Shape;
use crate::pattern::{Pattern, PatternError, PatternSet, Selector, path_of};

/// A problem that makes the rules unusable. `rule`: index into the specs. The text says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RuleError {
    pub rule: usize,
    pub message: String,
}

/// Something that works but is probably not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleWarning {
    pub rule: usize,
    pub message: String,
}

/// The compiled rules, in the order of their specs; and former ones, which take no series any more, but may still have open
/// windows.
#[derive(Debug)]
pub struct RuleSet {
    /// Those in force, then former ones.
    rules: Vec<Rule>,
    in_force: usize,
    by_id: BTreeMap<RuleId, usize>,
    /// The selectors of all rules, asked together.
    selectors: PatternSet,
    warnings: Vec<RuleWarning>,
    version: u64,
}

#[derive(Debug)]
struct Rule {
    id: RuleId,
    spec: RuleSpec,
    pattern: Pattern,
    template: Template,
    function_names: Vec<Box<[u8]>>,
    shape: Shape,
}

/// No rules.
impl Default for RuleSet {
    fn default() -> RuleSet {
        RuleSet {
            rules: Vec::new(),
            in_force: 0,
            by_id: BTreeMap::new(),
            selectors: PatternSet::default(),
            warnings: Vec::new(),
            version: version_of(&[]),
        }
    }
}

impl RuleSet {
    /// Compiles and checks all rules.
    ///
    /// # Errors
    /// Every problem of every rule, in order of the rules.
    pub fn compile(specs: &[RuleSpec]) -> Result<RuleSet, Vec<RuleError>> {
        let mut errors = Vec::new();
        let mut rules = Vec::new();
        if specs.len() > usize::from(u16::MAX) {
            return Err(vec![RuleError {
                rule: usize::from(u16::MAX),
                message: "at most 65535 rules are possible".into(),
            }]);
        }
        for (index, spec) in specs.iter().enumerate() {
            match Rule::compile(spec) {
                Ok(rule) => rules.push((index, rule)),
                Err(messages) => errors.extend(messages.into_iter().map(|message| RuleError { rule: index, message })),
            }
        }
        check_names_unique(specs, &mut errors);
        check_outputs_differ(&rules, &mut errors);
        let by_id = check_ids_differ(&rules, &mut errors);
        let rules: Vec<Rule> = rules.into_iter().map(|(_, rule)| rule).collect();
        if !errors.is_empty() {
            errors.sort_by_key(|error| error.rule);
            return Err(errors);
        }
        let selectors = PatternSet::compile(specs.iter().map(|spec| &spec.selector)).map_err(|errors| {
            let error = |(rule, error): (usize, PatternError)| RuleError { rule, message: error.to_string() };
            errors.into_iter().map(error).collect::<Vec<_>>()
        })?;
        let warnings = matched_outputs(&rules, &selectors);
        Ok(RuleSet { in_force: rules.len(), rules, by_id, selectors, warnings, version: version_of(specs) })
    }

    /// Learns rules of former days, newest first, so that what they still have in open windows can be emitted. One whose
    /// outputs a known rule goes on with is not needed.
    ///
    /// # Errors
    /// What this program cannot compile any more; all others are learnt.
    pub fn remember(&mut self, former: &[RuleSpec]) -> Result<(), Vec<RuleError>> {
        let mut errors = Vec::new();
        for (index, spec) in former.iter().enumerate() {
            if self.by_id.contains_key(&spec.id()) {
                continue;
            }
            match Rule::compile(spec) {
                Ok(rule) => {
                    self.by_id.insert(rule.id, self.rules.len());
                    self.rules.push(rule);
                }
                Err(messages) => errors.extend(messages.into_iter().map(|message| RuleError { rule: index, message })),
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// What is probably not meant.
    pub fn warnings(&self) -> &[RuleWarning] {
        &self.warnings
    }

    /// Equal for equal specs, on every machine; goes with every batch.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How many are in force.
    pub fn len(&self) -> usize {
        self.in_force
    }

    pub fn is_empty(&self) -> bool {
        self.in_force == 0
    }

    /// The spec of a rule, in force or former.
    pub fn spec(&self, rule: RuleId) -> Option<&RuleSpec> {
        self.rule(rule).map(|rule| &rule.spec)
    }

    /// The components that a rule needs. Plain for a rule that is not known.
    pub fn shape(&self, rule: RuleId) -> Shape {
        self.rule(rule).map_or(Shape::PLAIN, |rule| rule.shape)
    }

    /// Appends the output keys that the series `name` (normal form) feeds, in order of the rules. A `group_by` tag that
    /// the series does not have is left out of the output's name.
    pub fn outputs(&self, name: &[u8], out: &mut Vec<OutputKey>) {
        for rule in self.matching(name) {
            if let Some(captures) = rule.pattern.captures(name) {
                let name = rule.template.expand(&captures, group_tags(&rule.spec.group_by, name));
                out.push(OutputKey { rule: rule.id, name: name.into() });
            }
        }
    }

    /// Whether a rule that takes `name` asks for it not to be stored as it is.
    pub fn drop_raw(&self, name: &[u8]) -> bool {
        self.matching(name).any(|rule| rule.spec.drop_raw)
    }

    /// Replaces the content of `out` with the name of the series for `key` and the function at `position` in its
    /// rule's list.
    pub fn output_name(&self, key_rule: RuleId, key_name: &[u8], position: usize, out: &mut Vec<u8>) {
        let function = self.rule(key_rule).and_then(|rule| rule.function_names.get(position));
        template::fill_function(key_name, function.map_or(b"", |name| name), out);
    }

    /// Replaces the content of `out` with the name of a key's completeness series: `__complete` where the function's
    /// name would stand, else behind the path.
    pub fn complete_name(&self, key_name: &[u8], out: &mut Vec<u8>) {
        template::fill_complete(key_name, out);
    }

    fn rule(&self, rule: RuleId) -> Option<&Rule> {
        self.by_id.get(&rule).and_then(|place| self.rules.get(*place))
    }

    /// The rules that take `name`, in order.
    fn matching(&self, name: &[u8]) -> impl Iterator<Item = &Rule> {
        self.selectors.matches(name).into_iter().filter_map(|place| self.rules.get(place))
    }
}

impl Rule {
    fn compile(spec: &RuleSpec) -> Result<Rule, Vec<String>> {
        let mut problems = Vec::new();
        if spec.name.is_empty() {
            problems.push("a rule needs a name".to_owned());
        }
        if spec.interval == 0 {
            problems.push("the interval must be at least one second".to_owned());
        }
        if spec.interval.checked_add(spec.grace).is_none() {
            problems.push("interval and grace together are longer than 136 years".to_owned());
        }
        if spec.functions.is_empty() {
            problems.push("a rule needs at least one function, such as \"sum\"".to_owned());
        }
        for (index, function) in spec.functions.iter().enumerate() {
            if spec.functions[..index].contains(function) {
                problems.push(format!("the function `{}` stands twice", function.as_str()));
            }
        }
        let pattern = match Pattern::compile(&spec.selector) {
            Ok(pattern) => pattern,
            Err(error) => {
                problems.push(error.to_string());
                return Err(problems);
            }
        };
        let template = Template::parse(&spec.output, &pattern).map_err(|problem| problems.push(problem)).ok();
        if let Some(template) = &template {
            check_functions_and_tags(spec, template, &mut problems);
        }
        match template {
            Some(template) if problems.is_empty() => Ok(Rule {
                id: spec.id(),
                function_names: spec.functions.iter().map(|function| function.as_str().as_bytes().into()).collect(),
                shape: Shape::of(&spec.functions),
                spec: spec.clone(),
                pattern,
                template,
            }),
            Some(_) | None => Err(problems),
        }
    }
}

fn check_functions_and_tags(spec: &RuleSpec, template: &Template, problems: &mut Vec<String>) {
    if spec.functions.len() > 1 && !template.has_function() {
        problems.push(format!(
            "{} functions would all be written to `{}`: put `{{function}}` into the output",
            spec.functions.len(),
            spec.output
        ));
    }
    let mut keys = template.tag_keys();
    for tag in &spec.group_by {
        if tag.is_empty()
            || tag == "name"
            || tag.bytes().any(|byte| b";!^= ".contains(&byte) || byte.is_ascii_control())
        {
            problems.push(format!("`{tag}` in group_by cannot be the key of a tag"));
        }
        if keys.iter().any(|key| key == tag.as_bytes()) {
            problems.push(format!("the output would have the tag `{tag}` twice"));
        }
        keys.push(tag.as_bytes().to_vec());
    }
}

fn check_names_unique(specs: &[RuleSpec], errors: &mut Vec<RuleError>) {
    let mut first_with: BTreeMap<&str, usize> = BTreeMap::new();
    for (rule, spec) in specs.iter().enumerate() {
        if let Some(first) = first_with.get(spec.name.as_str()) {
            errors.push(RuleError {
                rule,
                message: format!("rule {} (counted from 1) is already called `{}`", first + 1, spec.name),
            });
        } else {
            first_with.insert(&spec.name, rule);
        }
    }
}

/// Two rules must not write one series: the store would keep whichever came last. Compared are the names with every
/// function filled in. Different `group_by` does not make them different, since a series may lack the tag. Templates
/// that differ in their text may still collide for some captured values; that cannot be known here.
fn check_outputs_differ(rules: &[(usize, Rule)], errors: &mut Vec<RuleError>) {
    let mut writer: BTreeMap<Vec<Piece>, usize> = BTreeMap::new();
    for (index, rule) in rules {
        let complete = rule.spec.completeness.then_some(&b"__complete"[..]);
        for function in rule.function_names.iter().map(|name| &name[..]).chain(complete) {
            let name = rule.template.with_function(function);
            match writer.get(&name) {
                Some(other) if other != index => {
                    let first =
                        rules.iter().find(|(at, _)| at == other).map_or("?", |(_, rule)| rule.spec.name.as_str());
                    let message = format!(
                        "rule `{}` and rule `{first}` both write `{}`: give one of them another output",
                        rule.spec.name, rule.spec.output
                    );
                    errors.push(RuleError { rule: *index, message });
                    break;
                }
                Some(_) => {}
                None => {
                    writer.insert(name, *index);
                }
            }
        }
    }
}

/// Where each rule is. That two share an id although their outputs differ happens once in some thousand million pairs.
fn check_ids_differ(rules: &[(usize, Rule)], errors: &mut Vec<RuleError>) -> BTreeMap<RuleId, usize> {
    let mut by_id = BTreeMap::new();
    for (place, (index, rule)) in rules.iter().enumerate() {
        let other: Option<usize> = by_id.insert(rule.id, place);
        // Of two that write the same the operator hears already.
        if let Some(first) = other.map(|other| &rules[other].1.spec).filter(|first| first.output != rule.spec.output) {
            let first = &first.name;
            errors.push(RuleError {
                rule: *index,
                message: format!(
                    "the output of rule `{}` has by chance the same number as that of rule `{first}`: change it a little",
                    rule.spec.name
                ),
            });
        }
    }
    by_id
}

fn matched_outputs(rules: &[Rule], selectors: &PatternSet) -> Vec<RuleWarning> {
    let mut warnings = Vec::new();
    for from in rules {
        let mut takers: Vec<usize> = from
            .function_names
            .iter()
            .flat_map(|function| selectors.matches(&from.template.sample(function)))
            .collect();
        takers.sort_unstable();
        takers.dedup();
        for taker in takers {
            let message = format!(
                "rule `{}` would match the output `{}` of rule `{}`; outputs go to stores only and are not aggregated again",
                rules[taker].spec.name, from.spec.output, from.spec.name
            );
            warnings.push(RuleWarning { rule: taker, message });
        }
    }
    warnings
}

/// The input's tags that are grouped by, as `key=value`.
fn group_tags<'n>(group_by: &'n [String], name: &'n [u8]) -> impl Iterator<Item = &'n [u8]> {
    let tags = &name[path_of(name).len()..];
    tags.split(|byte| *byte == b';').skip(1).filter(move |tag| {
        let key = template::key_of(tag);
        key.len() + 1 < tag.len() && group_by.iter().any(|wanted| wanted.as_bytes() == key)
    })
}

fn version_of(specs: &[RuleSpec]) -> u64 {
    let mut hash = Xxh3Default::new();
    let mut put = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for spec in specs {
        put(spec.name.as_bytes());
        match &spec.selector {
            Selector::Glob(text) => put(format!("glob {text}").as_bytes()),
            Selector::Regex(text) => put(format!("regex {text}").as_bytes()),
        }
        let functions: Vec<_> = spec.functions.iter().map(Function::as_str).collect();
        put(functions.join(",").as_bytes());
        put(spec.output.as_bytes());
        put(spec.group_by.join(";").as_bytes());
        let to: Vec<String> = spec.to.iter().map(usize::to_string).collect();
        put(to.join(",").as_bytes());
        put(format!("{} {} {} {}", spec.interval, spec.grace, spec.drop_raw, spec.completeness).as_bytes());
    }
    hash.digest()
}
