//! What plugins say reaches the server's log: once, with the plugin's name, so many lines a second.

mod common;

use std::fmt::Debug;
use std::sync::Mutex;

use common::{load, short, single};
use patchbay_lua::{RenderCall, Sandbox};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps each event as one line of its fields.
struct Keeper;

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push_str(&format!("{}={value:?} ", field.name()));
    }
}

impl Subscriber for Keeper {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line(format!("{} ", event.metadata().level()));
        event.record(&mut line);
        LINES.lock().expect("the lines").push(line.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn count(text: &str) -> usize {
    let lines = LINES.lock().expect("the lines");
    lines.iter().filter(|line| line.contains(text)).count()
}

#[tokio::test]
async fn lines_come_once_with_the_name_and_not_too_many() {
    tracing::subscriber::set_global_default(Keeper).expect("the only subscriber");
    let sandbox = Sandbox::new(short());
    let text = "print('at the top', {})\nreturn patchbay.plugin { name = 'Talker', render = function(_, filled)\n patchbay.log.warn('in the hook', filled)\n if filled == 'flood' then for i = 1, 49 do print(i) end end\n return filled end }";
    let plugin = load(&sandbox, single(text)).await.expect("a plugin");
    for filled in ["one", "two", "flood"] {
        let call = RenderCall {
            values: serde_json::Map::new(),
            filled: filled.to_owned(),
            context: Default::default(),
        };
        let answers = plugin.render(vec![call]).await;
        assert_eq!(answers, [Ok(filled.to_owned())]);
    }
    assert_eq!(count("at the top table"), 1);
    assert_eq!(
        count("WARN message=in the hook one plugin=Talker hook=\"render\""),
        1,
        "{:?}",
        LINES.lock()
    );
    while count("lines of this plugin were dropped") == 0 {
        tokio::task::yield_now().await;
    }
    let told = count("plugin=Talker");
    let dropped = LINES.lock().expect("the lines").iter().find_map(|line| {
        let (_, rest) = line.split_once("message=")?;
        rest.split_once(" lines of this plugin")?
            .0
            .parse::<usize>()
            .ok()
    });
    // All that was said in the hooks was told or is counted, and so was the line that counts. What was said at the top was
    // said before the plugin had a name.
    assert_eq!(told - 1 + dropped.expect("a count"), 52);
}
