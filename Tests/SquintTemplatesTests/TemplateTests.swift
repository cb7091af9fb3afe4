import Foundation
import SquintFile
import SquintTemplates
import SquintText
import Testing

/// The moment at which tools/fixtures/templates_oracle.py has stopped the clock.
private let oracleDate = TemplateDate(
  year: 2024, month: 7, day: 6, hour: 9, minute: 5, second: 3, microsecond: 42)

private let fixtures = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
  .appendingPathComponent("Fixtures/templates")

/// One template, what it is given, and what transformers makes of it.
struct TemplateCase: CustomStringConvertible {
  let name: String
  let template: String
  let variables: TemplateDictionary
  /// nil where transformers raises an error.
  let expected: String?

  var description: String { name }

  /// Reads what tools/fixtures/templates_generate.py writes.
  static func read(_ file: URL) throws -> [TemplateCase] {
    let value = try TemplateValue(json: Data(contentsOf: file), place: file.lastPathComponent)
    guard case .dictionary(let content) = value, case .dictionary(let templates) = content["templates"],
      case .dictionary(let inputs) = content["inputs"], case .list(let items) = content["cases"]
    else { return [] }
    return items.compactMap { item in
      guard case .dictionary(let fields) = item, case .string(let name) = fields["name"],
        case .string(var template) = fields["template"], case .string(let input) = fields["input"],
        case .dictionary(let variables) = inputs[input]
      else { return nil }
      if case .string(let text) = templates[template] { template = text }
      var expected: String?
      if case .string(let text) = fields["expected"] { expected = text }
      return TemplateCase(name: name, template: template, variables: variables, expected: expected)
    }
  }

  /// What somebody said that the prompt takes for the template's own; nil where nothing is.
  ///
  /// Whatever is said begins and ends with letters that no template has.
  func leak() -> String? {
    func foreign(_ value: TemplateValue, isSaid: Bool) -> TemplateValue {
      switch value {
      case .string(let text): return isSaid ? .string("한\(text)글") : value
      case .list(let items): return .list(items.map { foreign($0, isSaid: isSaid) })
      case .dictionary(let fields):
        let said: Set<String> = [
          "content", "text", "reasoning_content", "thinking", "reasoning", "arguments", "name", "title",
        ]
        return .dictionary(
          TemplateDictionary(
            entries: fields.entries.map {
              .init(key: $0.key, value: foreign($0.value, isSaid: isSaid || said.contains($0.key)))
            }))
      default: return value
      }
    }
    var variables = variables
    for name in ["messages", "tools", "documents"] {
      if let value = variables[name] { variables[name] = foreign(value, isSaid: false) }
    }
    guard let text = try? ChatTemplate(source: template).render(variables: variables, date: oracleDate) else {
      return nil
    }
    let own = text.bytes.indices.filter { text.isOwn($0..<$0 + 1) }.map { text.bytes[$0] }
    let letters = String(decoding: own, as: UTF8.self).unicodeScalars.filter { (0xAC00...0xD7A3).contains($0.value) }
    return letters.isEmpty
      ? nil : "takes \(letters.count) foreign letters for the template's own: \(text.string.debugDescription)"
  }

  /// What differs from transformers; nil where nothing does.
  func difference() -> String? {
    do {
      let text = try ChatTemplate(source: template).render(variables: variables, date: oracleDate).string
      guard let expected else { return "prints \(text.debugDescription) where transformers raises an error" }
      // By bytes: Swift's == takes different spellings of a character for the same.
      if text.utf8.elementsEqual(expected.utf8) { return nil }
      return "prints \(text.debugDescription), not \(expected.debugDescription)"
    } catch {
      guard let expected else { return nil }
      return "raises '\(error)', not \(expected.debugDescription)"
    }
  }
}

@Suite struct TemplateTests {
  @Test(arguments: ["expressions.json", "models.json"])
  func equalsTransformers(file: String) throws {
    let cases = try TemplateCase.read(fixtures.appendingPathComponent(file))
    #expect(!cases.isEmpty)
    for example in cases {
      if let difference = example.difference() ?? example.leak() {
        Issue.record("\(file), \(example.name): \(example.template.prefix(300).debugDescription) \(difference)")
      }
    }
  }

  /// Published templates, which are not ours to keep here: see tools/fixtures/templates_published.py.
  @Test(.enabled(if: ProcessInfo.processInfo.environment["SQUINT_TEMPLATE_CASES"] != nil))
  func publishedTemplates() throws {
    let folder = URL(fileURLWithPath: ProcessInfo.processInfo.environment["SQUINT_TEMPLATE_CASES"] ?? "")
    let files = try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
      .filter { $0.pathExtension == "json" }.sorted { $0.path < $1.path }
    #expect(!files.isEmpty)
    for file in files {
      let cases = try TemplateCase.read(file)
      var differences: [String] = []
      for example in cases {
        if let difference = example.difference() ?? example.leak() {
          differences.append("\(example.name): \(difference)")
        }
      }
      let name = file.deletingPathExtension().lastPathComponent
      let rendered = cases.count { $0.expected != nil }
      print("\(differences.isEmpty ? "pass" : "FAIL") \(name): \(cases.count) cases, of which \(rendered) print")
      for difference in differences.prefix(3) { print("    \(difference.prefix(1500))") }
      #expect(differences.isEmpty, "\(name)")
    }
  }
}

// MARK: - The public interface

extension TemplateTests {
  private static let conversation = [
    ChatMessage(role: "system", "Be brief."), ChatMessage(role: "user", "Hi"),
    ChatMessage(role: "assistant", "Hello!"), ChatMessage(role: "user", " Why? "),
  ]
  private static var tokens: [String: TemplateValue] { ["bos_token": .text(.own("<s>")), "eos_token": "</s>"] }

  @Test func namedTemplatesPrintTheirFormats() throws {
    func prompt(_ name: String, _ messages: [ChatMessage]) throws -> String {
      let template = try #require(ChatTemplate.named(name))
      return try template.render(messages: messages, addGenerationPrompt: true, variables: Self.tokens).string
    }
    #expect(
      try prompt("chatml", Self.conversation) == """
        <|im_start|>system
        Be brief.<|im_end|>
        <|im_start|>user
        Hi<|im_end|>
        <|im_start|>assistant
        Hello!<|im_end|>
        <|im_start|>user
         Why? <|im_end|>
        <|im_start|>assistant

        """)
    #expect(
      try prompt("llama2", Self.conversation)
        == "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello! </s><s>[INST] Why? [/INST]")
    #expect(
      try prompt("vicuna", Self.conversation)
        == "<s>Be brief. USER: Hi ASSISTANT: Hello!</s>USER:  Why?  ASSISTANT:")
    let image = ChatMessage(role: "user", content: .parts([.text("What is this?"), .image]))
    #expect(try prompt("vicuna", [image]).hasSuffix("questions. USER: <image>\nWhat is this? ASSISTANT:"))
    #expect(ChatTemplate.names.allSatisfy { ChatTemplate.named($0) != nil })
    #expect(ChatTemplate.named("nosuch") == nil)
  }

  @Test func messagesCarryPartsAndFields() throws {
    let template = try ChatTemplate(
      source: """
        {% for message in messages %}{{ message.role }}({% for part in message.content or [] %}{{ part.type }}:\
        {{ part.text or part.url or part.keys()|list }};{% endfor %}){{ message.tool_calls|tojson if message.tool_calls }}
        {{ message.reasoning_content }}{{ message.thinking }}{% endfor %}{{ add_generation_prompt }}
        """.replacingOccurrences(of: "\\\n", with: ""))
    let messages = [
      ChatMessage(
        role: "user",
        content: .parts([.text("a"), .image, .video, .audio, .other(["type": "series", "url": "b.csv"])])),
      ChatMessage(
        role: "assistant", content: .none,
        fields: ["tool_calls": [["name": "f", "arguments": ["x": 1, "y": 2.5]]], "reasoning": "because"]),
    ]
    let text = try template.render(messages: messages, addGenerationPrompt: false)
    #expect(
      text.string == """
        user(text:a;image:['type'];video:['type'];audio:['type'];series:b.csv;)
        assistant()[{"name": "f", "arguments": {"x": 1, "y": 2.5}}]
        becausebecauseFalse
        """)
  }

  /// What is wrong with a template, or nil.
  private func message(_ source: String) -> String? {
    do {
      _ = try ChatTemplate(source: source).render(messages: Self.conversation, addGenerationPrompt: true)
      return nil
    } catch {
      #expect(error.kind == .badData)
      return error.message
    }
  }

  @Test func errorsNameTheLineAndTheReason() throws {
    #expect(message("{{ raise_exception('Roles must alternate') }}") == "chat template, line 1: Roles must alternate")
    #expect(
      message("a\nb\n{{ messages | xmlattr }}")
        == "chat template, line 3: the filter 'xmlattr' is not supported; the template has to do without it")
    #expect(
      message("\n{% include 'x' %}")
        == "chat template, line 2: the statement 'include' is not supported; the template has to do without it")
    #expect(message("\n\n{{ nosuch.field }}") == "chat template, line 3: 'nosuch' is undefined")
    #expect(message("{% if x %}") == "chat template, line 1: the template ends before '{% endif %}'")
    #expect(message("{{ messages[0].content + 1 }}")?.contains("type str and int") == true)
  }

  /// What jinja2 and Python have and no published template uses is never taken for something else.
  @Test(arguments: [
    ("{{ 7 / 2 }}", "the operator '/'"), ("{{ 7 // 2 }}", "the operator '//'"), ("{{ 2 ** 3 }}", "the operator '**'"),
    ("{{ 0.5 }}", "the number that begins with 0"), ("{{ 0xff }}", "the number that begins with 0"),
    ("{{ '\\a' }}", "the escape '\\a' in a string"), ("{{ 'a'.zfill(3) }}", "the method str.zfill"),
    ("{{ [1].index(1) }}", "the method list.index"), ("{{ {}.copy() }}", "the method dict.copy"),
    ("{{ [1] | sum }}", "the filter 'sum'"), ("{{ 3 is odd }}", "the test 'odd'"),
    ("{{ 3 is divisibleby 3 }}", "the test 'divisibleby'"), ("{% with x = 1 %}{% endwith %}", "the statement 'with'"),
    ("{% raw %}x{% endraw %}", "the statement 'raw'"), ("{% for x in [1] recursive %}{% endfor %}", "'recursive'"),
    ("{% for x in [1] %}{% else %}{% endfor %}", "a loop with '{% else %}'"),
    ("{% for x in [1] %}{{ loop.revindex }}{% endfor %}", "loop.revindex"),
    ("{% macro m() %}{{ varargs }}{% endmacro %}", "'varargs' in a macro"),
    ("{{ strftime_now('%U') }}", "strftime_now('%U')"),
    ("{% macro m() %}{% endmacro %}{{ m.name }}", "the method Macro.name"),
  ]) func whatIsNotSupportedIsNamed(source: String, what: String) throws {
    let message = try #require(self.message("\n" + source))
    #expect(message.hasPrefix("chat template, line 2: "))
    #expect(message.contains(what) && message.contains("not supported; "), "\(message)")
  }

  @Test func dateIsThatOfTheCallerOrOfToday() throws {
    let template = try ChatTemplate(source: "{{ strftime_now('%A %d %b %Y %H:%M') }}")
    let text = try template.render(
      messages: [], addGenerationPrompt: false, date: TemplateDate(year: 2000, month: 2, day: 29, hour: 23))
    #expect(text.string == "Tuesday 29 Feb 2000 23:00")
    let year = try ChatTemplate(source: "{{ strftime_now('%Y') }}").render(messages: [], addGenerationPrompt: false)
    #expect(try #require(Int(year.string)) >= 2024)
  }

  @Test func valuesReadJSON() throws {
    let value = try TemplateValue(
      json: Array(#" {"b": [1, -2.5e1, "\u00e9\ud83d\udc27\n"], "a": {}, "b2": [true, null, false], "a": []} "#.utf8))
    #expect(value == ["b": [1, -25.0, "é🐧\n"], "a": [], "b2": [true, nil, false]])
    for bad in [
      "", "{", "[1,]", "{\"a\" 1}", "\"\\ud83d\"", "\"a", "nul", "1 2", "[1", "--1", "\"\\x\"", "[\"a\u{1}\"]",
    ] {
      #expect(throws: SquintError.self, "\(bad)") { try TemplateValue(json: Array(bad.utf8)) }
    }
    let deep = String(repeating: "[", count: 100_000)
    #expect(throws: SquintError.self) { try TemplateValue(json: Array(deep.utf8)) }
  }
}

// MARK: - Bounds

extension TemplateTests {
  /// Each of these would run for ever, fill the memory, overflow an integer or overflow the stack.
  static let hostile: [String] = [
    "{{ range(1000000000000) | list }}", "{{ 'x' * 1000000000 }}", "{{ 'x' * 1000000000000000000 }}",
    "{{ 9223372036854775807 * 2 }}", "{{ 9223372036854775807 + 1 }}", "{{ -9223372036854775807 - 2 }}",
    "{{ (-9223372036854775807 - 1) % -1 ~ 1 % 0 }}", "{{ -(-9223372036854775807 - 1) }}", "{{ 99999999999999999999 }}",
    "{{ '1e300' | int }}", "{{ 1 % 0 }}", "{{ 'ab' | indent(1000000000) }}", "{{ {} | tojson(indent=1000000000) }}",
    "{{ range(-9223372036854775807, 9223372036854775807) | length }}",
    "{{ range(0, 9223372036854775807, -9223372036854775807 - 1)[5] }}{{ 1 % 0 }}",
    "{{ 'abc'[::-9223372036854775807 - 1] }}{{ 'abc'[-9223372036854775807 - 1:9223372036854775807] }}{{ 1 % 0 }}",
    "{% set ns = namespace(x='ab') %}{% for i in range(100) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "{% set ns = namespace(x='ab') %}{% for i in range(100) %}{% set ns.x = ns.x.replace('a', ns.x) %}{% endfor %}",
    "{% set ns = namespace(x='ab') %}{% for i in range(100) %}{% set ns.x = ns.x | join(ns.x) %}{% endfor %}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(100) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}{% endfor %}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(45) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(45) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x == ns.x }}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(45) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}",
    "{% set ns = namespace() %}{% set ns.x = ns %}", "{% set ns = namespace() %}{% set ns.x = [ns] %}",
    "{% set ns = namespace() %}{% for i in range(100000) %}{% set ns.x = namespace(y=ns.x) %}{% endfor %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro m(n) %}{% for i in [1] %}{% if true %}{{ [[m(n + 1)]] }}{% endif %}{% endfor %}{% endmacro %}{{ m(0) }}",
    "{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{{ caller() }}{% endmacro %}{% call m() %}{% endcall %}",
    "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
    "{% for a in range(100000) %}{{ 'a long line of text that is printed again and again' * 100 }}{% endfor %}",
    "{% for a in range(100000) %}{% macro m() %}{% endmacro %}{{ range(1000) | list | length }}{% endfor %}",
    "{% set x = 'a' * 10000000 %}{% for a in range(100000) %}{{ x.split('ab')[0] }}{% endfor %}",
    "{% set x = 'a' * 10000000 %}{% for a in range(100000) %}{{ x == x ~ '' }}{% endfor %}",
    "{{ ('a' * 10000000) | list | length }}", "{{ ('a ' * 5000000).split() | length }}",
    "{{ ('{}' * 1000000).format(1) }}", "{{ '\u{0}' * 5 ~ 1 % 0 }}",
    "{{ " + String(repeating: "(", count: 100_000),
    "{{ " + String(repeating: "[", count: 5000) + String(repeating: "]", count: 5000) + " }}",
    "{{ " + String(repeating: "{1:", count: 5000), "{{ x" + String(repeating: "[x", count: 5000),
    "{{ x" + String(repeating: "(x", count: 5000), "{{ x" + String(repeating: "|f(x", count: 5000),
    "{{ " + String(repeating: "-", count: 100_000) + "1 }}", "{{ " + String(repeating: "not ", count: 100_000) + "1 }}",
    "{{ 1" + String(repeating: "+1", count: 100_000) + " }}", "{{ x" + String(repeating: ".x", count: 100_000) + " }}",
    "{{ x" + String(repeating: "|f", count: 100_000) + " }}", "{{ 1" + String(repeating: " if 1", count: 100_000),
    "{{ 1" + String(repeating: " if 1 else 1", count: 100_000), "{{ 1" + String(repeating: " and 1", count: 100_000),
    "{{ 1" + String(repeating: "*1", count: 100_000), String(repeating: "{% if x %}", count: 100_000),
    String(repeating: "{% for x in y %}", count: 5000), "{% set " + String(repeating: "(", count: 100_000),
    String(repeating: "{% macro m() %}", count: 5000),
  ]

  @Test func boundsHostileTemplates() async throws {
    // On a stack as small as that of a thread on macOS.
    let messages = await onSmallStack { Self.hostile.map(outcome) }
    for (template, message) in zip(Self.hostile, messages) {
      #expect(message?.hasPrefix("chat template, line 1: ") == true, "\(template.prefix(100)): \(message ?? "prints")")
    }
  }

  @Test func deepButLegalTemplatesFitASmallStack() async throws {
    let deep = [
      "{{ " + String(repeating: "[", count: 90) + "1" + String(repeating: "]", count: 90) + " | tojson }}",
      "{{ 1" + String(repeating: " + 1", count: 95) + " }}",
      "{{ " + String(repeating: "(", count: 45) + "1"
        + String(repeating: ")", count: 45) + " }}",
      String(repeating: "{% if true %}", count: 48) + "x" + String(repeating: "{% endif %}", count: 48),
      "{{ 'a'" + String(repeating: " ~ 'a'", count: 5000) + " }}",
      "{% if false %}" + String(repeating: "{% elif false %}", count: 5000) + "{% else %}x{% endif %}",
      "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{% endif %}x{% endmacro %}{{ m(40) }}",
    ]
    let messages = await onSmallStack { deep.map(outcome) }
    for (template, message) in zip(deep, messages) { #expect(message == nil, "\(template.prefix(60))") }
  }

  // MARK: Fuzzing

  /// Random sequences of the language's own tokens, and published-like templates with pieces cut out, doubled and
  /// swapped: whatever they are, the outcome is text or an error.
  @Test func survivesTokenSoup() async throws {
    let vocabulary = """
      {{ }} {% %} {%- -%} {{- -}} {# #} if elif else endif for in endfor set endset macro endmacro call endcall filter \
      endfilter with endwith raw endraw break continue generation endgeneration recursive is not and or true false \
      none loop namespace ns ns.x range dict messages message tools m x y ( ) [ ] { } , : . | ~ + - * / // % ** == != \
      < <= > >= = 'a' "b" '%s' '{}' 0 1 -1 2.5 9223372036854775807 1e308 ( ) . | join length list map select reject \
      selectattr first last sort unique tojson string int float abs round items dictsort batch slice replace indent \
      default trim upper title reverse sum min max groupby format center truncate attr escape wordcount .x ['role'] \
      .content .items() .split('a') .strip() .format( .replace( .find( .join( [0] [-1] [::-1] [1:] loop.last \
      loop.index loop.nextitem loop.cycle( caller() varargs kwargs strftime_now('%d') raise_exception('x') joiner() \
      cycler(1) defined odd mapping string eq
      """.split(whereSeparator: \.isWhitespace).map(String.init)
    var generator = SeededGenerator(state: 20_240_706)
    var soups: [String] = []
    for _ in 0..<4000 {
      var soup = ""
      var isInside = false
      for _ in 0..<Int.random(in: 1...40, using: &generator) {
        // Mostly well-formed tags, so that the soup gets past the lexer.
        if !isInside || Int.random(in: 0..<8, using: &generator) == 0 {
          soup +=
            isInside
            ? ["}}", "%}"].randomElement(using: &generator)! : ["{{ ", "{% "].randomElement(using: &generator)!
          isInside.toggle()
        }
        soup += vocabulary.randomElement(using: &generator)!
        if Bool.random(using: &generator) { soup += " " }
      }
      soups.append(soup)
    }
    let finished = await onSmallStack { [soups] in soups.map { (text) -> Bool in fuzz(text, [:]) } }
    #expect(finished.count == 4000)
  }

  @Test func survivesMutatedTemplates() async throws {
    let expressions = try TemplateCase.read(fixtures.appendingPathComponent("expressions.json"))
    let models = try TemplateCase.read(fixtures.appendingPathComponent("models.json"))
    var generator = SeededGenerator(state: 42)
    var cases: [(String, TemplateDictionary)] = []
    for index in 0..<8000 {
      let source = (index % 2 == 0 ? expressions : models).randomElement(using: &generator)!
      let other = (index % 3 == 0 ? models : expressions).randomElement(using: &generator)!
      var bytes = Array(source.template.utf8)
      for _ in 0..<Int.random(in: 1...4, using: &generator) where !bytes.isEmpty {
        let start = Int.random(in: 0..<bytes.count, using: &generator)
        let end = min(bytes.count, start + Int.random(in: 1...12, using: &generator))
        switch Int.random(in: 0..<5, using: &generator) {
        case 0: bytes.removeSubrange(start..<end)
        case 1: bytes.insert(contentsOf: bytes[start..<end], at: Int.random(in: 0...bytes.count, using: &generator))
        case 2: bytes[start] = UInt8.random(in: 0...255, using: &generator)
        case 3: bytes.swapAt(start, Int.random(in: 0..<bytes.count, using: &generator))
        default:
          let piece = Array(other.template.utf8)
          let from = piece.isEmpty ? 0 : Int.random(in: 0..<piece.count, using: &generator)
          bytes.insert(contentsOf: piece[from..<min(piece.count, from + 20)], at: start)
        }
      }
      cases.append((String(decoding: bytes, as: UTF8.self), source.variables))
    }
    let finished = await onSmallStack { [cases] in cases.map { fuzz($0.0, $0.1) } }
    #expect(finished.count == 8000)
    // Mutations that leave a template whole are what reaches the interpreter; a share of them has to.
    #expect(finished.count { $0 } > 800)
  }
}

/// A small generator of random numbers that is the same everywhere (Steele, Lea and Flood's SplitMix64).
struct SeededGenerator: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }
}

/// The message of the error that a template ends in; nil where it prints.
private func outcome(_ template: String) -> String? {
  var limits = TemplateLimits()
  // Fewer than in use, to keep the test short; the limits of texts and nesting are those in use.
  limits.steps = 400_000
  do {
    _ = try ChatTemplate(source: template).render(variables: [:], date: oracleDate, limits: limits)
    return nil
  } catch {
    return error.message
  }
}

/// Whether `template` printed; an error is as good.
private func fuzz(_ template: String, _ variables: TemplateDictionary) -> Bool {
  var limits = TemplateLimits()
  limits.steps = 20_000
  limits.output = 1 << 16
  limits.text = 1 << 18
  return (try? ChatTemplate(source: template).render(variables: variables, date: oracleDate, limits: limits)) != nil
}

/// Runs `body` on a thread with a stack of 512 KiB, as those of macOS; unoptimized and instrumented code takes more.
private func onSmallStack<Result: Sendable>(_ body: @escaping @Sendable () -> Result) async -> Result {
  await withCheckedContinuation { continuation in
    let thread = Thread { continuation.resume(returning: body()) }
    var isLarge = dlsym(nil, "__asan_init") != nil
    #if DEBUG
      isLarge = true
    #endif
    thread.stackSize = isLarge ? 16 << 20 : 512 << 10
    thread.start()
  }
}
