import SquintFile
import SquintText

/// One message of a conversation, as a chat template sees it.
public struct ChatMessage: Sendable, Equatable {
  /// A piece of a message that mixes text and media.
  public enum Part: Sendable, Equatable {
    case text(String)
    /// An image, whose place the template marks in its own way.
    case image
    case video
    case audio
    case molecule
    case series
    /// A part of another type, with all its fields.
    case other(TemplateDictionary)

    var value: TemplateValue {
      switch self {
      case .text(let text): ["type": .text(.own("text")), "text": .string(text)]
      case .image: ["type": .text(.own("image"))]
      case .video: ["type": .text(.own("video"))]
      case .audio: ["type": .text(.own("audio"))]
      case .molecule: ["type": .text(.own("molecule"))]
      case .series: ["type": .text(.own("series"))]
      case .other(let fields): .dictionary(fields)
      }
    }
  }

  public enum Content: Sendable, Equatable {
    case text(String)
    case parts([Part])
    /// A text in which something is the program's own, such as what stands for an image.
    case marked(PromptText)
    /// No content, as in an assistant's message that only calls tools.
    case none
  }

  /// `system`, `user`, `assistant`, `tool`, or what else the template knows.
  public var role: String
  public var content: Content
  /// Further fields, such as `tool_calls`, `name` or `reasoning_content`.
  public var fields: TemplateDictionary

  public init(role: String, content: Content, fields: TemplateDictionary = [:]) {
    self.role = role
    self.content = content
    self.fields = fields
  }

  public init(role: String, _ text: String, fields: TemplateDictionary = [:]) {
    self.init(role: role, content: .text(text), fields: fields)
  }

  /// The roles that every template may know. Some write `<|user|>` by putting the role between `<|` and `|>`; of another word,
  /// which may be anybody's, they make no control token.
  private static let roles: Set<String> = [
    "system", "developer", "user", "assistant", "model", "tool", "function", "ipython",
  ]

  var value: TemplateValue {
    let role: TemplateValue = Self.roles.contains(role) ? .text(.own(role)) : .string(role)
    var entries: [TemplateDictionary.Entry] = [.init(key: "role", value: role)]
    switch content {
    case .marked(let text): entries.append(.init(key: "content", value: .text(text)))
    case .text(let text): entries.append(.init(key: "content", value: .string(text)))
    case .parts(let parts): entries.append(.init(key: "content", value: .list(parts.map(\.value))))
    case .none: entries.append(.init(key: "content", value: .none))
    }
    return .dictionary(TemplateDictionary(entries: entries + fields.entries))
  }
}

/// A checkpoint's own chat template: a Jinja program that turns a conversation into the prompt that the model was
/// trained on.
///
/// The result equals that of `apply_chat_template` in transformers, which runs templates in jinja2's
/// ImmutableSandboxedEnvironment (transformers/utils/chat_template_utils.py). The language is what published templates use, and
/// no more: what else jinja2 and Python have (inheritance, recursive loops, `%` formatting, division, most methods of str) is an
/// error that names it and the line.
///
/// A template comes with a download and is not trusted: its output, its steps, its texts and its nesting are bounded.
package struct ChatTemplate: Sendable {
  /// The template's text, as it was given.
  package let source: String
  private let statements: [TemplateStatement]

  /// Parses a template.
  ///
  /// - Throws: `badData` with the line of the first mistake, or of what is not supported.
  package init(source: String) throws(SquintError) {
    self.source = source
    statements = try TemplateParser.parse(source)
  }

  /// Prints a conversation as the prompt that the model expects.
  ///
  /// - Parameters:
  ///   - messages: The conversation, from its first message on.
  ///   - addGenerationPrompt: Whether the prompt ends with the head of the assistant's answer.
  ///   - variables: What else the template reads: `bos_token`, `eos_token`, `tools`, `documents`, `enable_thinking`. Tokens are
  ///     `.text(.own(…))`: what is a `.string` is content.
  ///   - date: What `strftime_now` prints; the machine's local time where it is nil.
  /// - Returns: the prompt, which knows what of it the template wrote itself. What somebody said stays content through all that
  ///   a template does with it; where it cannot be told apart any more, all of it is content.
  /// - Throws: `badData` with the line: what the template itself raises (an order of roles that it refuses), a mistake
  ///   in it, or something that is not supported.
  package func render(
    messages: [ChatMessage], addGenerationPrompt: Bool, variables: [String: TemplateValue] = [:],
    date: TemplateDate? = nil
  ) throws(SquintError) -> PromptText {
    try render(
      messages: messages, addGenerationPrompt: addGenerationPrompt, variables: variables, date: date,
      limits: TemplateLimits())
  }

  package func render(
    messages: [ChatMessage], addGenerationPrompt: Bool, variables: [String: TemplateValue], date: TemplateDate? = nil,
    limits: TemplateLimits
  ) throws(SquintError) -> PromptText {
    var all = TemplateDictionary()
    for (name, value) in variables { all.entries.append(.init(key: name, value: value)) }
    all["messages"] = .list(messages.map(\.value))
    all["add_generation_prompt"] = .bool(addGenerationPrompt)
    return try render(variables: all, date: date, limits: limits)
  }

  /// Prints a conversation whose messages are given as plain values, in `variables`.
  ///
  /// `tools` and `documents` are None where they are not given, and a message's reasoning is found under each of the
  /// names that templates use, as in transformers.
  package func render(
    variables: TemplateDictionary, date: TemplateDate? = nil, limits: TemplateLimits = TemplateLimits()
  ) throws(SquintError) -> PromptText {
    var context: [PythonText: PythonValue] = ["tools": .none, "documents": .none]
    let builder = TemplateInterpreter(context: [:], date: date ?? .now(), limits: limits)
    for entry in variables.entries {
      var value = entry.value
      if entry.key == "messages", case .list(let messages) = value {
        value = .list(messages.map(Self.aliasingReasoning))
      }
      context[PythonText(entry.key)] = try builder.convert(value, depth: 0)
    }
    let interpreter = TemplateInterpreter(context: context, date: builder.date, limits: limits)
    return try interpreter.render(statements).prompt
  }

  /// Older templates read a message's reasoning as `thinking`, newer ones as `reasoning_content`; transformers gives
  /// them both (`_alias_reasoning_fields`).
  private static func aliasingReasoning(_ message: TemplateValue) -> TemplateValue {
    guard case .dictionary(var fields) = message else { return message }
    for name in ["reasoning_content", "thinking", "reasoning"] {
      guard let reasoning = fields[name], reasoning != .none else { continue }
      if fields["thinking"] == nil { fields.entries.insert(.init(key: "thinking", value: reasoning), at: 0) }
      fields["reasoning_content"] = reasoning
      return .dictionary(fields)
    }
    return message
  }

  // MARK: Templates by name

  /// Names that ``named(_:)`` knows.
  package static let names = ["chatml", "llama2", "vicuna"]

  /// A template for a checkpoint that has none, by the name of its prompt format; nil where the name is not known.
  ///
  /// - `chatml`: messages between `<|im_start|>` and `<|im_end|>`.
  /// - `llama2`: turns in `[INST]`, the system message in `<<SYS>>`.
  /// - `vicuna`: `USER:` and `ASSISTANT:`, also the format of LLaVA 1.5, with `<image>` where an image goes.
  package static func named(_ name: String) -> ChatTemplate? {
    let body: String
    switch name {
    case "chatml":
      body = """
        {%- for message in messages %}
          {{- '<|im_start|>' ~ message.role ~ '\\n' ~ text(message) ~ '<|im_end|>\\n' }}
        {%- endfor %}
        {%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
        """
    case "llama2":
      body = """
        {%- set state = namespace(system='') %}
        {%- for message in messages %}
          {%- if message.role == 'system' %}
            {%- set state.system = '<<SYS>>\\n' ~ text(message) ~ '\\n<</SYS>>\\n\\n' %}
          {%- elif message.role == 'assistant' %}
            {{- ' ' ~ text(message) | trim ~ ' ' ~ eos_token }}
          {%- else %}
            {{- bos_token ~ '[INST] ' ~ state.system ~ text(message) | trim ~ ' [/INST]' }}
            {%- set state.system = '' %}
          {%- endif %}
        {%- endfor %}
        """
    case "vicuna":
      body = """
        {%- set state = namespace(system="A chat between a curious user and an artificial intelligence assistant. "
            "The assistant gives helpful, detailed, and polite answers to the user's questions.") %}
        {%- if messages and messages[0].role == 'system' %}{% set state.system = text(messages[0]) %}{% endif %}
        {{- bos_token ~ state.system ~ ' ' }}
        {%- for message in messages if message.role != 'system' %}
          {%- if message.role == 'assistant' %}
            {{- 'ASSISTANT: ' ~ text(message) ~ eos_token }}
          {%- else %}
            {{- 'USER: ' ~ text(message) ~ ' ' }}
          {%- endif %}
        {%- endfor %}
        {%- if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}
        """
    default: return nil
    }
    // Media come first in a message of these formats, as LLaVA 1.5 was trained.
    let macro = """
      {%- macro text(message) %}
        {%- if message.content is string %}
          {{- message.content }}
        {%- else %}
          {%- for part in message.content or [] if part.type != 'text' %}{{ '<' ~ part.type ~ '>\\n' }}{% endfor %}
          {%- for part in message.content or [] if part.type == 'text' %}{{ part.text }}{% endfor %}
        {%- endif %}
      {%- endmacro %}

      """
    return try? ChatTemplate(source: macro + body)
  }
}

extension TemplateInterpreter {
  /// A caller's value as the running template sees it.
  func convert(_ value: TemplateValue, depth: Int) throws(SquintError) -> PythonValue {
    _ = try checked(depth: depth)
    switch value {
    case .none: return .none
    case .bool(let value): return .bool(value)
    case .int(let value): return .int(value)
    case .double(let value): return .double(value)
    case .string(let text): return .text(PythonText(text))
    case .text(let text): return .text(PythonText(text))
    case .list(let items):
      var converted: [PythonValue] = []
      for item in items { converted.append(try convert(item, depth: depth + 1)) }
      return try list(converted)
    case .dictionary(let dictionary):
      let converted = PythonDictionary()
      for entry in dictionary.entries {
        converted.set(PythonText(entry.key), try convert(entry.value, depth: depth + 1))
      }
      return .dictionary(converted)
    }
  }
}
