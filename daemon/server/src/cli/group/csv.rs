//! The CSV of `reset-offsets`: `topic,partition,offset` of one group, or the group before that, as
//! kafka-consumer-groups writes and reads it. Names of topics and groups are quoted where they need to be.

use std::collections::BTreeMap;

use tradewind_client::consumer::assignor::TopicPartition;

/// Offsets of groups.
pub(super) type Offsets = BTreeMap<String, BTreeMap<TopicPartition, i64>>;

/// Writes offsets; the group stands on each line if there are several.
pub(super) fn write(offsets: &Offsets) -> String {
    let several = offsets.len() > 1;
    let mut text = String::new();
    for (group, offsets) in offsets {
        for ((topic, partition), offset) in offsets {
            if several {
                text += &format!("{},", quoted(group));
            }
            text += &format!("{},{partition},{offset}\n", quoted(topic));
        }
    }
    text
}

/// Reads offsets. Lines of three fields are of `group`, if that is one; a line that says nothing is skipped. Errors name
/// the line.
pub(super) fn read(text: &str, group: Option<&str>) -> Result<Offsets, String> {
    let mut read = Offsets::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |why: &str| format!("line {}: {why}", number + 1);
        let fields = fields(line).ok_or_else(|| wrong("a quote is not closed"))?;
        let fields: Vec<&str> = fields.iter().map(|field| field.trim()).collect();
        let (of, topic, partition, offset) = match (fields.as_slice(), group) {
            ([topic, partition, offset], Some(group)) => (group, topic, partition, offset),
            ([of, topic, partition, offset], _) => (*of, topic, partition, offset),
            ([_, _, _], None) => return Err(wrong("several groups need group,topic,partition,offset")),
            _ => {
                return Err(wrong(
                    "write topic,partition,offset or group,topic,partition,offset",
                ));
            }
        };
        let partition: i32 = partition
            .parse()
            .map_err(|_| wrong("the partition is no number"))?;
        let offset: i64 = offset.parse().map_err(|_| wrong("the offset is no number"))?;
        if of.is_empty() || topic.is_empty() || partition < 0 {
            return Err(wrong("a name is empty or the partition negative"));
        }
        let at = ((*topic).to_owned(), partition);
        if read
            .entry(of.to_owned())
            .or_default()
            .insert(at, offset)
            .is_some()
        {
            return Err(wrong("this partition is there already"));
        }
    }
    Ok(read)
}

fn quoted(field: &str) -> String {
    if field.contains([',', '"', ' ']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

/// The fields of a line; `None` if a quote is not closed.
fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut inside = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        let field = fields.last_mut()?;
        match character {
            '"' if inside && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' => inside = !inside,
            ',' if !inside => fields.push(String::new()),
            other => field.push(other),
        }
    }
    (!inside).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(group: &str, topic: &str, partition: i32, offset: i64) -> Offsets {
        Offsets::from([(
            group.to_owned(),
            BTreeMap::from([((topic.to_owned(), partition), offset)]),
        )])
    }

    #[test]
    fn one_group_has_three_fields_and_several_have_four() {
        let one = offsets("g", "t", 2, 7);
        assert_eq!(write(&one), "t,2,7\n");
        assert_eq!(read("t,2,7\n\n", Some("g")).unwrap(), one);
        let mut two = one;
        two.extend(offsets("a, \"b\"", "t", 0, 1));
        assert_eq!(write(&two), "\"a, \"\"b\"\"\",t,0,1\ng,t,2,7\n");
        assert_eq!(read(&write(&two), None).unwrap(), two);
        // Four fields name their group even if only one was asked for.
        assert_eq!(read("g,t,2,7", Some("h")).unwrap(), offsets("g", "t", 2, 7));
    }

    #[test]
    fn a_wrong_line_is_named() {
        let why = |text: &str, group| read(text, group).unwrap_err();
        assert!(why("t,0,1\nt,0", Some("g")).starts_with("line 2"));
        assert!(why("t,0,1", None).contains("group,topic,partition,offset"));
        assert!(why("t,x,1", Some("g")).contains("partition"));
        assert!(why("t,0,x", Some("g")).contains("offset"));
        assert!(why("t,0,1\nt,0,2", Some("g")).starts_with("line 2"));
        assert!(why("\"t,0,1", Some("g")).contains("quote"));
        assert!(why(",0,1", Some("g")).contains("empty"));
    }
}
