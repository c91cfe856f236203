//! Calls as text in the dialects of models, and answers that only speak of calls.

use proptest::prelude::*;

use super::ends_in_call;

const CALLS: &[&str] = &[
    r#"{"name": "run_command", "arguments": {"command": "ls"}}"#,
    r#"{"name": "run_command", "parameters": {"command": "ls"}}"#,
    r#"[{"name": "run_command", "arguments": {"command": "ls"}}]"#,
    r#"{"type": "function", "function": {"name": "read_file", "arguments": "{\"path\":\"a\"}"}}"#,
    r#"{"tool_calls": [{"function": {"name": "read_file", "arguments": {"path": "a"}}}]}"#,
    r#"{"function_call": {"name": "read_file", "arguments": "{}"}}"#,
    r#"{"tool": "run_command", "tool_input": {"command": "ls"}}"#,
    r#"{"action": "run_command", "action_input": "ls"}"#,
    r#"{"run_command": {"command": "ls"}}"#,
    "{\"name\": \"write_file\", \"arguments\": {\"path\": \"a\", \"content\": \"x\ny\"}}",
    "{\"name\": \"read_file\", \"arguments\": {\"path\": \"a\"}}\n{\"name\": \"read_file\", \"arguments\": {\"path\": \"b\"}}",
    r#"functools[{"name": "run_command", "arguments": {"command": "ls"}}]"#,
    "```json\n{\"name\": \"run_command\", \"arguments\": {\"command\": \"ls\"}}\n```",
    "```\n{\"name\": \"functions.run_command\", \"arguments\": {\"command\": \"ls\"}}\n```",
    "```json\n{\"name\": \"run_command\", \"arguments\": {\"command\": \"ls\"}}",
    "```tool_code\nprint(default_api.run_command(command=\"ls\"))\n```",
    "```xml\n<tool_call>{\"name\": \"run_command\", \"arguments\": {}}</tool_call>\n```",
    "<tool_call>\n{\"name\": \"run_command\", \"arguments\": {\"command\": \"ls\"}}\n</tool_call>",
    "<tool_call>\n{\"name\": \"run_command\", \"arguments\": {\"command\": \"ls\"}}",
    "<tool_call>\n```json\n{\"name\": \"run_command\", \"arguments\": {}}\n```\n</tool_call>",
    "<tool_call>\n<function=run_command>\n<parameter=command>\nls -la\n</parameter>\n</function>\n</tool_call>",
    "<function=run_command>{\"command\": \"ls\"}</function>",
    "<function=run_command>{\"command\": \"ls\"}",
    "<function_calls>\n<invoke name=\"run_command\">\n<parameter name=\"command\">ls</parameter>\n</invoke>\n</function_calls>",
    "<invoke name='run_command'><parameter name='command'>ls</parameter></invoke>",
    "<minimax:tool_call>\n<invoke name=\"read_file\">\n<parameter name=\"path\">a</parameter>\n</invoke>\n</minimax:tool_call>",
    "<tool_use><name>run_command</name><arguments>{\"command\":\"ls\"}</arguments></tool_use>",
    "<tool_call>run_command\n<arg_key>command</arg_key>\n<arg_value>ls</arg_value>\n</tool_call>",
    "<run_command>\n<command>ls</command>\n</run_command>",
    "<|tool_call|>[{\"name\": \"run_command\", \"arguments\": {\"command\": \"ls\"}}]<|/tool_call|>",
    "<|tool_call|>{\"name\": \"run_command\", \"arguments\": {\"command\": \"ls\"}}",
    "<|tool_calls_section_begin|><|tool_call_begin|>functions.run_command:0<|tool_call_argument_begin|>{\"command\": \"ls\"}<|tool_call_end|><|tool_calls_section_end|>",
    "<|python_tag|>{\"name\": \"run_command\", \"parameters\": {\"command\": \"ls\"}}",
    "<|python_tag|>run_command.call(command=\"ls\")",
    "<|python_tag|>{\"name\": \"run_command\", \"parameters\": {\"command\": \"ls\"}}<|eom_id|>",
    "<|channel|>commentary to=functions.run_command <|constrain|>json<|message|>{\"command\":\"ls\"}<|call|>",
    "<|start|>assistant<|channel|>commentary to=functions.run_command<|message|>{\"command\":\"ls\"}",
    "<|tool_call_start|>[run_command(command=\"ls\")]<|tool_call_end|>",
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>run_command\n```json\n{\"command\":\"ls\"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>run_command<｜tool▁sep｜>{\"command\":\"ls\"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "[TOOL_CALLS][{\"name\": \"run_command\", \"arguments\": {\"command\": \"ls\"}}]",
    "[TOOL_CALLS] [{\"name\": \"run_command\", \"arguments\": {\"command\": \"ls\"}}]",
    "[TOOL_CALLS]run_command[ARGS]{\"command\": \"ls\"}",
    "[TOOL_REQUEST]\n{\"name\": \"run_command\", \"arguments\": {\"command\": \"ls\"}}\n[END_TOOL_REQUEST]",
    "run_command\n{\"command\": \"ls\"}",
    "functions.run_command {\"command\": \"ls\"}",
    "```run_command\n{\"command\": \"ls\"}\n```",
    "Thought: I must look.\nAction: run_command\nAction Input: {\"command\": \"ls\"}",
    "✿FUNCTION✿: run_command\n✿ARGS✿: {\"command\": \"ls\"}",
    "[run_command(command=\"ls\")]",
    "run_command(command=\"ls\")",
    "<tools>\n{\"name\": \"run_command\", \"arguments\": {\"command\": \"ls\"}}\n</tools>",
    "{\"name\": \"run_command\", \"arguments\": {\"command\": \"ls\"}}<|im_end|>",
    "{\"name\": \"run_command\", \"arguments\": {\"command\": \"ls\"}}\n</tool_call>",
    "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"run_command\">\n<｜DSML｜parameter name=\"command\" string=\"true\">ls</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>",
    "<|START_ACTION|>[{\"tool_call_id\": \"0\", \"tool_name\": \"run_command\", \"parameters\": {\"command\": \"ls\"}}]<|END_ACTION|>",
    "<|from|>assistant\n<|recipient|>run_command\n<|content|>{\"command\": \"ls\"}",
    ">>>run_command\n{\"command\": \"ls\"}",
    "assistantcommentary to=functions.run_command json{\"command\":\"ls\"}",
    "<start_function_call>call:run_command{command:<escape>ls<escape>}<end_function_call>",
    "<run_command command=\"ls\" />",
    "<invoke name=\"run_command\" command=\"ls\"/>",
    "<action>run_command</action>\n<action_input>{\"command\": \"ls\"}</action_input>",
    "<tool>run_command</tool><tool_input>ls</tool_input>",
    "[TOOL_CALLS]run_command[CALL_ID]123456789[ARGS]{\"command\": \"ls\"}",
    "[TOOL_CALLS]run_command{\"command\": \"ls\"}",
    "{'name': 'run_command', 'arguments': {'command': 'ls'}}",
    "{\"tool\": \"run_command\", \"command\": \"ls\"}",
    "{\"thought\": \"I look\", \"action\": {\"name\": \"run_command\", \"arguments\": {\"command\": \"ls\"}}}",
    "{\"type\": \"tool_use\", \"id\": \"toolu_1\", \"name\": \"run_command\", \"input\": {\"command\": \"ls\"}}",
    "<tool_call>\n{\"name\": \"run_command\", \"arguments\": {\"command\": \"ls -la",
    "Action: run_command\nAction Input: ls -la",
    "[run_command(command=\"ls\"), read_file(path=\"a\")]",
    "tool_call: run_command({\"command\":\"ls\"})",
    "&lt;tool_call&gt;{\"name\": \"run_command\", \"arguments\": {}}&lt;/tool_call&gt;",
    "**Tool call:** `run_command`\n```json\n{\"command\": \"ls\"}\n```",
];

const ANSWERS: &[&str] = &[
    "",
    "Done: two files.",
    "I ran `run_command` with `ls`.",
    "The tool `read_file` reads a file, `<tool_call>` marks a call.",
    "A model writes `{\"name\": \"run_command\", \"arguments\": {}}` then.",
    "```json\n{\"name\": \"run_command\", \"arguments\": {\"command\": \"ls\"}}\n```\nThat is what a call looks like.",
    "Qwen writes\n<tool_call>\n{\"name\": \"run_command\", \"arguments\": {}}\n</tool_call>\nand Llama does not.",
    "See:\n\n    <function=run_command>\n\nThe parser looks for it (in `parse.rs`).",
    "The <tool_call> tag stands before run_command (see the template).",
    "The config is now:\n```json\n{\"name\": \"my-app\", \"scripts\": {\"test\": \"pytest\"}}\n```",
    "{\"name\": \"anna\", \"arguments\": {\"x\": 1}}",
    "{\"command\": \"ls\"}",
    "[1, 2, 3]",
    "The tool run_command returned {\"command\": \"ls\"}",
    "Output of run_command:\n{\"a\": 1}",
    "run_tests says:\n\n{\"passed\": 3}",
    "```json\n{\"path\": \"a\"}\n```",
    "I called read_file.\nInput: {\"path\": \"a\"}",
    "<tool_call>{\"name\": \"browse\", \"arguments\": {}}</tool_call>",
    "The page ends with\n```html\n<body><main>run_command</main></body>\n```",
    "Here is its schema:\n```json\n[{\"name\": \"run_command\", \"description\": \"Runs it\", \"parameters\": {\"type\": \"object\", \"properties\": {}}}]\n```",
    "The script:\n```python\ntext = read_file(path=\"a\")\n```",
    "```python\nread_file(path=\"a\")\n```",
    "I used [run_command](docs/tools.md).",
    "It prints [run_command]",
    "Use <b>run_command</b>",
    "Tests: {green}",
    "- [x] run_command\n- [ ] read_file",
    "The usage is `read_file(path)`, see [tools].",
    "The <tool_call> tag stands before {\"name\": \"run_command\" and so on",
    "It ends with <call>read_file</call> in the template, which is <b>bold</b>",
    "```json\n{\"name\": \"x\", \"command\": \"run_command\"}\n```",
    "Action: read the file\nAction Input: none was needed",
    "{'a': 'run_command'}",
    "The page has <function> and </function>",
    "See [tools](read_file.md) and [x]",
    "I ran run_command, whose arguments were\n```json\n{\"command\": \"ls\"}\n```",
    "The template has &lt;b&gt;bold&lt;/b&gt;",
];

#[test]
fn a_call_in_every_dialect_is_recognised_alone_and_after_prose() {
    for call in CALLS {
        assert!(ends_in_call(call), "{call}");
        assert!(ends_in_call(&format!("I look first.\n\n{call}\n")), "{call}");
        assert!(ends_in_call(&format!("As `<tool_call>` says {{so}} [x]:\n```sh\nls\n```\n{call}")), "{call}");
    }
}

#[test]
fn an_answer_that_speaks_of_calls_is_an_answer() {
    for answer in ANSWERS {
        assert!(!ends_in_call(answer), "{answer}");
    }
    for call in CALLS.iter().filter(|call| call.matches("```").count() != 1) {
        let explained = format!("Like this:\n\n{call}\n\nIt is run then.");
        assert!(!ends_in_call(&explained), "{explained}");
    }
}

proptest! {
    #[test]
    fn nothing_panics_and_prose_is_never_a_call(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "```", "`", "\n", "<", ">", "|", "<|", "|>", "｜", "[", "]", "{", "}", "\"name\":", "\"run_command\"",
                "run_command", "(", ")", "=", "tool", "<tool_call>", "</tool_call>", "ä", " ", "~~~", "\"arguments\":{}",
            ]),
            0..24,
        ),
    ) {
        let text = pieces.concat();
        let _ = ends_in_call(&text);
        // A sentence behind it makes any text prose, but for one with a fence that was never closed.
        let prose = format!("{text}\n```\n```\nThat is all of it.");
        let open = pieces.iter().any(|piece| piece.contains("```") || piece.contains("~~~") || piece.contains('`'));
        prop_assert!(open || !ends_in_call(&prose), "{}", prose);
    }
}
