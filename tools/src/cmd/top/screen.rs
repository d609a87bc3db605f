//! Draws what `floodmark top` shows. Decides nothing: the view does.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Clear, Paragraph, Row, Table};

use super::view::{GROUP_COLUMNS, GroupRow, Pane, Sort, TOPIC_COLUMNS, TopicRow, View};
use crate::input::quantity::{show_bytes, show_count};

const HELP: [&str; 8] = [
    "Tab        the other list",
    "s, S       sort by the next column, the one before",
    "r          turn the order around",
    "up, down   scroll; also j, k, PageUp, PageDown, Home, End",
    "p, space   pause and go on",
    "?          this help",
    "q, Esc     quit",
    "Sizes are of files; rates are between the last two samples.",
];

pub(crate) fn draw(view: &View, frame: &mut Frame<'_>) {
    let groups = view.groups();
    // Groups take what they need, up to half; topics the rest.
    let group_rows = u16::try_from(groups.len()).unwrap_or(u16::MAX).saturating_add(3);
    let half = frame.area().height.saturating_sub(2) / 2;
    let [head, topic_area, group_area, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(group_rows.clamp(3, half.max(3))),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let topics = view.topics();
    frame.render_widget(header(view, &topics), head);
    frame.render_widget(topic_table(view, &topics), topic_area);
    frame.render_widget(group_table(view, &groups), group_area);
    frame.render_widget(footer(view), foot);
    if view.is_help_open {
        draw_help(frame);
    }
}

fn header(view: &View, topics: &[TopicRow]) -> Paragraph<'static> {
    let records: f64 = topics.iter().map(|topic| topic.records_per_second).sum();
    let bytes: f64 = topics.iter().map(|topic| topic.bytes_per_second).sum();
    let brokers = match view.brokers() {
        None => "waiting for the first answer".to_owned(),
        Some(1) => "1 broker".to_owned(),
        Some(count) => format!("{count} brokers"),
    };
    let text = format!(
        " {}  {brokers}  {} records/s  {}/s",
        view.server,
        show_count(records.round() as u64),
        show_bytes(bytes.round() as u64)
    );
    let mut spans = vec![Span::styled("floodmark top", Modifier::BOLD), Span::raw(text)];
    if view.is_paused {
        spans.push(Span::styled("  PAUSED", Style::new().fg(Color::Yellow).add_modifier(Modifier::BOLD)));
    }
    Paragraph::new(Line::from(spans))
}

fn footer(view: &View) -> Paragraph<'static> {
    let silence = view.silence.map(|silence| format!("no answer for {} s", silence.as_secs()));
    let why: Vec<String> = silence.into_iter().chain(view.failure.clone()).collect();
    if !why.is_empty() {
        return Paragraph::new(format!("stale: {}", why.join(": "))).style(Style::new().fg(Color::Red));
    }
    if let Some(gaps) = view.gaps() {
        return Paragraph::new(format!("incomplete: {gaps}")).style(Style::new().fg(Color::Yellow));
    }
    Paragraph::new("q quit  p pause  s sort  r reverse  Tab other list  ? help").style(Modifier::DIM)
}

fn topic_table<'a>(view: &View, topics: &'a [TopicRow]) -> Table<'a> {
    let rows = topics.iter().skip(view.topic_scroll).map(|topic| {
        let partitions = match topic.offline {
            0 => topic.partitions.to_string(),
            offline => format!("{} ({offline} offline)", topic.partitions),
        };
        let style = if topic.offline > 0 { Style::new().fg(Color::Red) } else { Style::new() };
        Row::new([
            Cell::new(topic.topic.as_str()),
            number(partitions),
            number(show_count(topic.records)),
            number(show_bytes(topic.size_bytes)),
            number(show_count(topic.records_per_second.round() as u64)),
            number(show_bytes(topic.bytes_per_second.round() as u64)),
        ])
        .style(style)
    });
    let widths = [24, 14, 14, 11, 12, 11].map(Constraint::Length);
    let widths = [&[Constraint::Min(24)], &widths[1..]].concat();
    let title = format!(" topics: {} ", topics.len());
    Table::new(rows, widths)
        .header(heads(&TOPIC_COLUMNS, 1, view.topic_sort))
        .block(block(title, view.pane == Pane::Topics))
}

fn group_table<'a>(view: &View, groups: &'a [GroupRow]) -> Table<'a> {
    let rows = groups.iter().skip(view.group_scroll).map(|group| {
        Row::new([
            Cell::new(group.group.as_str()),
            Cell::new(group.state.as_str()),
            number(group.members.to_string()),
            number(show_count(group.lag)),
            number(show_count(group.records_per_second.round() as u64)),
        ])
    });
    let widths = [
        Constraint::Min(24),
        Constraint::Length(20),
        Constraint::Length(9),
        Constraint::Length(14),
        Constraint::Length(12),
    ];
    let title = format!(" groups: {} ", groups.len());
    Table::new(rows, widths)
        .header(heads(&GROUP_COLUMNS, 2, view.group_sort))
        .block(block(title, view.pane == Pane::Groups))
}

fn block(title: String, is_chosen: bool) -> Block<'static> {
    let style =
        if is_chosen { Style::new().fg(Color::Cyan) } else { Style::new().add_modifier(Modifier::DIM) };
    Block::new().borders(Borders::TOP).title(title).border_style(style)
}

fn number(text: String) -> Cell<'static> {
    Cell::new(Line::from(text).alignment(Alignment::Right))
}

/// The first `words` columns hold words, the others numbers; an arrow marks the one that sorts.
fn heads(columns: &[&'static str], words: usize, sort: Sort) -> Row<'static> {
    let cells = columns.iter().enumerate().map(|(n, name)| {
        let arrow = match (n == sort.column, sort.is_descending) {
            (false, _) => "",
            (true, true) => "▼",
            (true, false) => "▲",
        };
        let text = format!("{name}{arrow}");
        if n < words { Cell::new(text) } else { number(text) }
    });
    Row::new(cells.collect::<Vec<_>>()).style(Modifier::BOLD)
}

fn draw_help(frame: &mut Frame<'_>) {
    let area = frame.area();
    let width = area.width.min(64);
    let height = area.height.min(HELP.len() as u16 + 2);
    let middle =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    frame.render_widget(Clear, middle);
    let block = Block::bordered().title(" keys ");
    frame.render_widget(Paragraph::new(HELP.map(Line::from).to_vec()).block(block), middle);
}
