//! Plans as `auto_explain` writes them into the server's log, and what they say of the rows that were read.

use serde_json::Value;

/// Tables that grow with the jobs. The others (lanes, limits, paused queues, who wants to be woken …) hold few rows.
const LARGE: [&str; 7] = ["job", "edge", "job_key", "failure", "running", "log_line", "publish_id"];

/// The plan of one statement that was run.
pub(super) struct Plan {
    explained: Value,
}

/// One step of a plan.
pub(super) struct Node<'a>(&'a Value);

/// Every plan in a log, in the order in which the statements ended.
pub(super) fn plans(log: &str) -> Vec<Plan> {
    let mut plans = Vec::new();
    let mut lines = log.lines().peekable();
    while let Some(line) = lines.next() {
        if !(line.contains("LOG:  duration:") && line.ends_with("plan:")) {
            continue;
        }
        let mut document = String::new();
        // what belongs to one message is indented by a tab
        while let Some(more) = lines.peek().and_then(|l| l.strip_prefix('\t')) {
            document.push_str(more);
            document.push('\n');
            lines.next();
        }
        let explained = serde_json::from_str(&document).unwrap_or_else(|e| panic!("{e}: {document}"));
        plans.push(Plan { explained });
    }
    plans
}

impl Plan {
    /// The statement.
    pub(super) fn text(&self) -> &str {
        self.explained["Query Text"].as_str().unwrap_or_default()
    }

    pub(super) fn has(&self, part: &str) -> bool {
        self.text().contains(part)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = Node<'_>> {
        let mut open = vec![&self.explained["Plan"]];
        std::iter::from_fn(move || {
            let node = open.pop()?;
            open.extend(node["Plans"].as_array().into_iter().flatten());
            Some(Node(node))
        })
    }
}

impl Node<'_> {
    fn word(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or_default()
    }

    fn number(&self, name: &str) -> f64 {
        self.0[name].as_f64().unwrap_or_default()
    }

    /// Reads a large table from its beginning to its end.
    pub(super) fn walks_a_table(&self) -> bool {
        let table = self.word("Relation Name");
        self.word("Node Type") == "Seq Scan"
            && self.number("Actual Loops") > 0.0
            && (LARGE.contains(&table) || table.starts_with("entry"))
    }

    /// How many rows it saw: those that it gave, and those that it threw away. What fills a common table expression is a
    /// step of its own, so it is not counted again for who reads that.
    pub(super) fn rows(&self) -> f64 {
        if self.word("Node Type") == "CTE Scan" {
            return 0.0;
        }
        let thrown =
            ["Rows Removed by Filter", "Rows Removed by Index Recheck", "Rows Removed by Join Filter"];
        let each = self.number("Actual Rows") + thrown.iter().map(|name| self.number(name)).sum::<f64>();
        each * self.number("Actual Loops")
    }

    pub(super) fn told(&self) -> String {
        let (kind, table, index) =
            (self.word("Node Type"), self.word("Relation Name"), self.word("Index Name"));
        format!("{kind} {table} {index}: {} rows", self.rows())
    }
}

#[test]
fn a_plan_is_read_from_the_log_with_all_its_steps() {
    let log = "2026-11-27 16:00:00.000 UTC [7] LOG:  duration: 0.1 ms  plan:\n\t{\n\t  \"Query Text\": \"select 1\\nfrom job\",\n\
               \t  \"Plan\": {\"Node Type\": \"Limit\", \"Actual Rows\": 1, \"Actual Loops\": 1, \"Plans\": [\n\
               \t    {\"Node Type\": \"Seq Scan\", \"Relation Name\": \"job\", \"Actual Rows\": 10, \"Actual Loops\": 2,\n\
               \t     \"Rows Removed by Filter\": 90}]}\n\t}\n2026-11-27 16:00:00.000 UTC [7] LOG:  done\n";
    let plans = plans(log);
    assert_eq!(plans.len(), 1);
    assert!(plans[0].has("from job"));
    let told: Vec<_> = plans[0].nodes().map(|n| (n.walks_a_table(), n.rows())).collect();
    assert_eq!(told, [(false, 1.0), (true, 200.0)]);
}
