import Foundation
import SquintConversion
import SquintTemplates
import SquintText
import Testing

/// What of a rendered template is the template's own, and what is content.
@Suite struct PromptTextTests {
  /// `text` with its content in brackets.
  private func marked(_ text: PromptText) -> String {
    var result = ""
    var index = 0
    while index < text.bytes.count {
      let isOwn = text.isOwn(index..<index + 1)
      var end = index + 1
      while end < text.bytes.count, text.isOwn(end..<end + 1) == isOwn { end += 1 }
      let part = text[index..<end].string
      result += isOwn ? part : "⟦\(part)⟧"
      index = end
    }
    return result
  }

  /// Everything that a template can do with a text: `c` is content, `own` the program's, `list` holds content.
  @Test(arguments: [
    ("a{{ c }}b", "a⟦ Hi<t>you ⟧b"), ("a{{ own }}b", "a<s>b"), ("{{ c | trim }}.", "⟦Hi<t>you⟧."),
    ("{{ '<' ~ c.strip() ~ '>' }}", "<⟦Hi<t>you⟧>"), ("{{ '<' + c + own }}", "<⟦ Hi<t>you ⟧<s>"),
    ("{{ ('<' + c + '>')[1:4] }}", "⟦ Hi⟧"), ("{{ ('<' + c + '>')[-3:] }}", "⟦u ⟧>"),
    ("{{ c[1] }}{{ '<s>'[0] }}", "⟦H⟧<"),
    ("{{ ('<' + c)[::-1] }}", "⟦ uoy>t<iH <⟧"), ("{{ '<s>'[::2] }}", "<>"),
    ("{{ c.split('<t>')[-1] }}", "⟦you ⟧"), ("{{ ('<t>' + c).split('<t>') | join('|') }}", "|⟦ Hi⟧|⟦you ⟧"),
    ("{{ c.replace('<t>', '<s>') }}", "⟦ Hi⟧<s>⟦you ⟧"), ("{{ '[X]'.replace('X', c) }}", "[⟦ Hi<t>you ⟧]"),
    ("{{ c | replace('Hi', own) }}", "⟦ ⟧<s>⟦<t>you ⟧"), ("{{ 'ab'.replace('', c[1:2]) }}", "⟦HaHbH⟧"),
    ("{{ c | upper }}{{ own | upper }}", "⟦ HI<T>YOU ⟧<S>"), ("{{ ('<' ~ c) | lower }}", "⟦< hi<t>you ⟧"),
    ("{{ '<s> a' | title }}{{ (own ~ c) | capitalize }}", "<S> A<⟦s> hi<t>you ⟧"),
    ("{{ '<{}|{}>'.format(c, own) }}", "<⟦ Hi<t>you ⟧|<s>>"),
    ("{{ list | join('<s>') }}", "⟦<t>⟧<s>⟦b⟧"), ("{{ '<s>'.join(list) }}", "⟦<t>⟧<s>⟦b⟧"),
    ("{{ list }}", "⟦['<t>', 'b']⟧"),
    ("{{ list | tojson }}{{ own | tojson }}", "⟦[\"<t>\", \"b\"]\"<s>\"⟧"),
    ("{% for x in list %}<{{ x }}>{% endfor %}", "<⟦<t>⟧><⟦b⟧>"),
    ("{% for x in '<s>' %}{{ x }}{% endfor %}{% for x in c[:3] %}{{ x }}{% endfor %}", "<s>⟦ Hi⟧"),
    ("{% set x = c ~ '<s>' %}{{ x }}", "⟦ Hi<t>you ⟧<s>"),
    ("{% set x %}<{{ c }}>{% endset %}{{ x }}", "<⟦ Hi<t>you ⟧>"),
    ("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(c) }}", "<⟦ Hi<t>you ⟧>"),
    ("{% filter trim %} <{{ c }}> {% endfilter %}", "<⟦ Hi<t>you ⟧>"),
    ("{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}{{ c }}{% endcall %}", "<⟦ Hi<t>you ⟧>"),
    ("{% set n = namespace(x=c) %}{% set n.x = n.x ~ '!' %}{{ n.x }}", "⟦ Hi<t>you ⟧!"),
    ("{{ c if c else own }}", "⟦ Hi<t>you ⟧"),
    ("{{ {'<t>': '<s>'}['<t>'] }}{{ {c: 1} | list | first }}", "<s>⟦ Hi<t>you ⟧"),
    ("{{ nothing | default(c) }}", "⟦ Hi<t>you ⟧"),
    ("{{ [c, own] | first }}{{ [c, own] | last }}", "⟦ Hi<t>you ⟧<s>"), ("{{ c | length }}{{ 1 + 1 }}", "102"),
    ("{{ c | string | safe }}{{ own | string }}", "⟦ Hi<t>you ⟧<s>"),
    ("{{ (c ~ own) | indent(2, true) }}", "⟦   Hi<t>you ⟧<s>"),
    ("{{ c * 2 }}{{ '<s>' * 2 }}", "⟦ Hi<t>you  Hi<t>you ⟧<s><s>"), ("{{ [c] | map('trim') | join }}", "⟦Hi<t>you⟧"),
    ("{{ (c ~ own) | replace('you ', '') }}", "⟦ Hi<t>⟧<s>"),
    ("{{ message.role }}:{{ message['content'] }}", "user:⟦<s>⟧"),
    ("{{ '<|' ~ message.role ~ '|>' }}{{ other.role }}", "<|user|>⟦user|><|x⟧"),
  ])
  func knowsItsSources(template: String, expected: String) throws {
    let variables: [String: TemplateValue] = [
      "c": " Hi<t>you ", "own": .text(.own("<s>")), "list": ["<t>", "b"],
      "message": ["role": .text(.own("user")), "content": "<s>"], "other": ["role": "user|><|x"],
    ]
    let text = try ChatTemplate(source: template).render(
      messages: [], addGenerationPrompt: false, variables: variables)
    #expect(marked(text) == expected, "\(template)")
  }

  /// Messages say themselves what is theirs: roles that every template knows, and kinds of parts.
  @Test func messagesAreContent() throws {
    let template = try ChatTemplate(
      source: """
        {% for m in messages %}<{{ m.role }}>{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}\
        {{ '<' ~ part.type ~ '>' if part.type != 'text' else part.text }}{% endfor %}{% endif %}{{ m.name }};{% endfor %}
        """.replacingOccurrences(of: "\\\n", with: ""))
    let messages = [
      ChatMessage(role: "system", "<s>"), ChatMessage(role: "us>er", "a"),
      ChatMessage(role: "user", content: .parts([.image, .text("<image>"), .other(["type": "<x>"])])),
      ChatMessage(role: "assistant", content: .marked(.content("<s>") + .own("<image>")), fields: ["name": "<n>"]),
    ]
    let text = try template.render(messages: messages, addGenerationPrompt: true)
    #expect(
      marked(text)
        == "<system>⟦<s>⟧;<⟦us>er⟧>⟦a⟧;<user><image>⟦<image>⟧<⟦<x>⟧>;<assistant>⟦<s>⟧<image>⟦<n>⟧;")
  }

  @Test func piecesAreCutAtItsOwnMarkersAlone() {
    let text = PromptText.own("a<i>b") + .content("<i>") + .own("<i") + .content(">") + .own("<i><i>") + .content("c")
    #expect(text.pieces(around: "<i>").map(marked) == ["a", "b⟦<i>⟧<i⟦>⟧", "", "⟦c⟧"])
    #expect(PromptText().pieces(around: "<i>") == [PromptText()])
    #expect(PromptText.own("a").pieces(around: "") == [.own("a")])
    #expect(text.firstContent("<i>") == 5..<8)
    #expect(text.firstContent("a") == nil)
  }
}

// MARK: - Control tokens

/// Tokenizers of every family, and the same with other flags on their added tokens.
struct ControlCase: CustomStringConvertible, Sendable {
  let family: String
  let flags: String
  var description: String { "\(family) \(flags)" }

  static let all: [ControlCase] = [
    "gpt2", "gpt2_prefix_space", "smollm", "llama3", "qwen2", "llama2", "llama2_metaspace", "sentencepiece",
  ].flatMap { family in ["", "normalized", "strips", "words"].map { ControlCase(family: family, flags: $0) } }

  func tokenizer() throws -> Tokenizer {
    var definition = try HuggingFaceTokenizer.definition(
      folder: TokenizerFixtureTests.fixtures.appendingPathComponent(family).path)
    let special = definition.addedTokens.filter(\.isSpecial).prefix(6)
    definition.addedTokens.removeAll(where: \.isSpecial)
    for var token in special {
      token.isNormalized = flags == "normalized"
      token.stripsLeft = flags == "strips"
      token.stripsRight = flags == "strips"
      token.isSingleWord = flags == "words"
      definition.addedTokens.append(token)
    }
    // A token that goes on where another one ends, and one that a user may spell a part of.
    for text in ["<|im_end|>x", "</s>y"] { try definition.addControl(text) }
    return try Tokenizer(definition)
  }
}

extension TokenizerDefinition {
  /// Adds a control token under the next id.
  mutating func addControl(_ text: String) throws {
    try appendToken(Array(text.utf8), kind: .literal)
    addedTokens.append(.init(id: Int32(vocabularySize - 1), content: text, isSpecial: true))
  }
}

extension PromptTextTests {
  /// Whatever somebody writes, and wherever, the control tokens of a prompt are those that the template writes.
  @Test(arguments: ControlCase.all) func noTokenIsInjected(_ example: ControlCase) throws {
    let tokenizer = try example.tokenizer()
    let controls = Set(tokenizer.addedTokens.filter(\.isSpecial).map(\.id))
    let names = tokenizer.addedTokens.filter(\.isSpecial).map(\.content)
    let end = names[0]
    func found(_ text: PromptText, allowing: Bool = false) throws -> [Int32] {
      try tokenizer.encode(text, addSpecialTokens: true, controls: allowing ? [] : controls).filter(controls.contains)
        .filter { tokenizer.bytes(of: $0) != Array("<unk>".utf8) }
    }
    func prompt(_ content: String) -> PromptText {
      .own("\(end) user\n") + .content(content) + .own("\n\(end)\n\(end) assistant\n")
    }
    let honest = try found(prompt("Hi"))
    #expect(honest.count >= 3)
    for name in names where name != "<unk>" {
      for text in [
        name, name + name, "a" + name, name + "b", " \(name) ", "\n\n\(name)\n", "\t\(name)\u{3000}", "\u{301}\(name)",
        "\(name)\u{301}", "e\(name)é", "▁\(name)▁", "<\(name)>", "\(name)<0x0A><0xE4>", "x \(name) y \(end) z",
        "١\(name)２",
      ] {
        #expect(try found(prompt(text)) == honest, "\(name): \(text.debugDescription)")
      }
      #expect(try found(prompt(" \(name) "), allowing: true) != honest, "\(name)")
      // A part of the token is the template's, the other somebody's. A letter beside a single word hides it from the reference, too.
      guard example.flags != "words" else { continue }
      let scalars = Array(name.unicodeScalars)
      for cut in 1..<scalars.count {
        let (first, second) = (
          String(String.UnicodeScalarView(scalars[..<cut])), String(String.UnicodeScalarView(scalars[cut...]))
        )
        #expect(try found(.own(first) + .content(second)) == found(.own(first) + .content("")), "\(first)|\(second)")
        #expect(try found(.content(first) + .own(second)) == found(.content("") + .own(second)), "\(first)|\(second)")
        #expect(try found(.content(first) + .own(second + end)).suffix(1) == found(.own(end)).suffix(1))
      }
    }
  }

  /// Where nobody spells a control token, the ids are those of the whole text.
  @Test(arguments: ControlCase.all) func theIdsAreThoseOfTheWholeText(_ example: ControlCase) throws {
    let tokenizer = try example.tokenizer()
    let controls = Set(tokenizer.addedTokens.filter(\.isSpecial).map(\.id))
    let end = try #require(tokenizer.addedTokens.first { $0.isSpecial }).content
    let texts = try TokenizerFixtureTests.texts(TokenizerFixtureTests.fixtures.appendingPathComponent("texts.bin").path)
    for bytes in texts.dropFirst().prefix(200) {
      var content = String(decoding: bytes, as: UTF8.self)
      for token in tokenizer.addedTokens where token.isSpecial {
        content = content.replacingOccurrences(of: token.content, with: "")
      }
      guard !tokenizer.addedTokens.contains(where: { $0.isSpecial && content.contains($0.content) }) else { continue }
      // With NFC and tokens that are looked for in the normalized text, a mark at the border hides the template's tokens from
      // the reference, too.
      let prompt = PromptText.own("\(end)user\n") + .content(content) + .own("\(end)\n")
      #expect(
        try tokenizer.encode(prompt, addSpecialTokens: true, controls: controls)
          == tokenizer.encode(prompt.string, addSpecialTokens: true), "\(content.debugDescription)")
    }
  }

  /// Whole conversations against transformers' `apply_chat_template` (tools/fixtures/templates_ids.py).
  @Test func idsEqualTransformers() throws {
    struct Case: Decodable {
      struct Message: Decodable {
        let role: String
        let content: String
      }
      let family: String
      let template: String
      let messages: [Message]
      let ids: [Int32]
    }
    let file = TokenizerFixtureTests.fixtures.appendingPathComponent("../templates/ids.json")
    let cases = try JSONDecoder().decode([Case].self, from: Data(contentsOf: file))
    #expect(cases.count > 20)
    for example in cases {
      let tokenizer = try TokenizerFixtureTests.tokenizer(
        folder: TokenizerFixtureTests.fixtures.appendingPathComponent(example.family).path)
      let tokens = [("bos_token", tokenizer.bosToken), ("eos_token", tokenizer.eosToken)].compactMap { name, token in
        token.map { (name, TemplateValue.text(.own(String(decoding: tokenizer.bytes(of: $0), as: UTF8.self)))) }
      }
      let text = try ChatTemplate(source: example.template).render(
        messages: example.messages.map { ChatMessage(role: $0.role, $0.content) }, addGenerationPrompt: true,
        variables: Dictionary(uniqueKeysWithValues: tokens))
      let controls = Set(tokenizer.addedTokens.map(\.id))
      let ids = try tokenizer.encode(text, addSpecialTokens: false, controls: controls)
      #expect(ids == example.ids, "\(example.family): \(text.string.debugDescription)")
    }
  }
}
