import SquintFile
import SquintText

// From text, conversations and tokens to prompts.

extension Model {
  /// The prompt that asks for the answer to `messages`: the checkpoint's chat template, rendered and tokenized.
  ///
  /// The pictures stand where the messages have `.image` parts. A model without a template gets the contents alone, line by
  /// line, and one whose template knows no pictures gets them in front of the text.
  ///
  /// - Throws: `usage` where there are more or fewer pictures than places for them.
  public func prompt(_ messages: [ChatMessage], pictures: [Picture] = []) throws(SquintError) -> Prompt {
    let places = messages.reduce(0) { $0 + $1.imageCount }
    guard places == pictures.count else { throw Self.mismatch(places: places, pictures: pictures.count) }
    guard !templateSource.isEmpty else {
      let text = messages.map { $0.inline(marker: markup.marker) }.joined(separator: "\n")
      return try prompt(marked: text, pictures: pictures, addSpecialTokens: true)
    }
    // The template writes the special tokens itself.
    return try prompt(marked: render(messages), pictures: pictures, addSpecialTokens: false)
  }

  /// The prompt that is `text`, without a chat template. Markers `<image>` in it stand for the pictures, in order; where it
  /// has none, the pictures come first.
  ///
  /// - Throws: `usage` where there are more or fewer pictures than markers.
  public func prompt(
    text: String, pictures: [Picture] = [], addSpecialTokens: Bool = true
  ) throws(SquintError) -> Prompt {
    guard sees else {
      guard pictures.isEmpty else { throw blind }
      return Prompt(tokens: try tokens(text, addSpecialTokens: addSpecialTokens))
    }
    let parts = text.pieces(around: PictureMarkup.publicMarker)
    let marked =
      parts.count == 1
      ? String(repeating: markup.marker, count: pictures.count) + text : parts.joined(separator: markup.marker)
    return try prompt(marked: marked, pictures: pictures, addSpecialTokens: addSpecialTokens)
  }

  /// The prompt of these tokens, in which the image token (as often as a picture has rows) stands for the pictures, in order:
  /// what a checkpoint's own processor makes.
  ///
  /// - Throws: `usage` where the image tokens are not as many as the pictures have rows.
  public func prompt(tokens: [Int32], pictures: [Picture]) throws(SquintError) -> Prompt {
    guard !pictures.isEmpty else { return Prompt(tokens: tokens) }
    guard sees else { throw blind }
    guard let token = markup.token else {
      throw SquintError(.usage, "\(file.path): it has no image token; give the prompt as text")
    }
    return try place(pictures, in: tokens, at: token)
  }

  // MARK: Text with markers

  /// No context is as long; each row is a text before it is a token.
  private static let mostRows = 1 << 20

  /// The prompt of `text`, in which each `markup.marker` stands for a picture.
  private func prompt(
    marked text: String, pictures: [Picture], addSpecialTokens: Bool
  ) throws(SquintError) -> Prompt {
    let parts = sees ? text.pieces(around: markup.marker) : [text]
    guard parts.count - 1 == pictures.count else {
      throw Self.mismatch(places: parts.count - 1, pictures: pictures.count)
    }
    guard !pictures.isEmpty else { return Prompt(tokens: try tokens(text, addSpecialTokens: addSpecialTokens)) }

    guard let token = markup.token else {
      return try piecewise(parts, pictures: pictures, addSpecialTokens: addSpecialTokens)
    }
    let rows = pictures.reduce(0) { $0 + $1.rows }
    guard rows <= Self.mostRows else {
      throw SquintError(
        .usage, "the pictures take \(grouped(rows)) tokens, more than any context holds; give fewer, or smaller ones")
    }
    // As the checkpoint's processor does it: the text with as many image tokens as there are rows is tokenized whole.
    var whole = parts[0]
    for (picture, part) in zip(pictures, parts.dropFirst()) {
      for piece in markup.pieces(picture.size) {
        switch piece {
        case .text(let text): whole += text
        case .rows(let rows): whole += String(repeating: markup.tokenText, count: rows.count)
        }
      }
      whole += part
    }
    return try place(pictures, in: encode(whole, addSpecialTokens: addSpecialTokens), at: token)
  }

  /// Each part tokenized for itself, as LLaVA's `tokenizer_image_token` does it for vocabularies without an image token.
  private func piecewise(
    _ parts: [String], pictures: [Picture], addSpecialTokens: Bool
  ) throws(SquintError) -> Prompt {
    guard let tokenizer else { throw noTokenizer }
    var prompt = Prompt(tokens: addSpecialTokens ? tokenizer.prefixTokens : [])
    func append(_ text: String) throws(SquintError) {
      if !text.isEmpty { prompt.append(Prompt(tokens: try tokens(text, addSpecialTokens: false))) }
    }
    try append(parts[0])
    for (picture, part) in zip(pictures, parts.dropFirst()) {
      for piece in markup.pieces(picture.size) {
        switch piece {
        case .text(let text): try append(text)
        case .rows(let rows): prompt.append(rows, of: picture)
        }
      }
      try append(part)
    }
    if addSpecialTokens { prompt.append(Prompt(tokens: tokenizer.suffixTokens)) }
    return prompt
  }

  /// Puts the rows of `pictures` where `tokens` has `token`.
  private func place(
    _ pictures: [Picture], in tokens: [Int32], at token: Int32
  ) throws(SquintError) -> Prompt {
    let places = tokens.reduce(0) { $0 + ($1 == token ? 1 : 0) }
    let rows = pictures.reduce(0) { $0 + $1.rows }
    guard places == rows else {
      throw SquintError(
        .usage,
        "the prompt has \(grouped(places)) image tokens (\(token)), and the \(pictures.count) pictures take \(grouped(rows))"
      )
    }
    var prompt = Prompt()
    var position = 0
    var remaining = pictures[...]
    var taken = 0  // of the first remaining picture
    while position < tokens.count {
      let isImage = tokens[position] == token
      var end = tokens[position...].firstIndex { ($0 == token) != isImage } ?? tokens.count
      if isImage, let picture = remaining.first {
        end = min(end, position + picture.rows - taken)
        prompt.append(taken..<taken + end - position, of: picture)
        taken += end - position
        if taken == picture.rows {
          remaining.removeFirst()
          taken = 0
        }
      } else {
        prompt.append(Prompt(tokens: Array(tokens[position..<end])))
      }
      position = end
    }
    try checkVocabulary(prompt.tokens)
    return prompt
  }

  private static func mismatch(places: Int, pictures: Int) -> SquintError {
    func count(_ number: Int, _ word: String) -> String { "\(number) \(word)\(number == 1 ? "" : "s")" }
    return SquintError(
      .usage,
      "the prompt has \(count(places, "place")) for pictures, and there \(pictures == 1 ? "is" : "are") "
        + "\(count(pictures, "picture")); give as many --image as the prompt has \(PictureMarkup.publicMarker), or leave the "
        + "markers out")
  }

  // MARK: Templates

  /// The prompt that the chat template makes of `messages`.
  ///
  /// Templates differ in what they expect of a message: its text, or a list of parts. One that is given the other leaves the text
  /// out or fails; so what comes out decides.
  private func render(_ messages: [ChatMessage]) throws(SquintError) -> String {
    // Parsed when it is needed: a template that we cannot read is no reason to refuse the rest of the model.
    let template: ChatTemplate
    do { template = try ChatTemplate(source: templateSource) } catch {
      throw SquintError(error.kind, "\(file.path): \(error.message)")
    }
    let pictures = messages.reduce(0) { $0 + $1.imageCount }
    let asParts = messages.map(\.inParts)
    let asText = messages.map { ChatMessage(role: $0.role, $0.inline(marker: markup.marker), fields: $0.fields) }
    // What an answer said may be left out, such as its reasoning; what the user said may not.
    let questions = messages.filter { $0.role == "user" }.flatMap(\.texts)
    var failure: SquintError?
    var fallback: String?
    for form in pictures > 0 ? [asParts, messages, asText] : [messages, asParts] {
      do throws(SquintError) {
        let text = try template.render(messages: form, addGenerationPrompt: true, variables: templateVariables)
        let places = pictures > 0 ? text.pieces(around: markup.marker).count - 1 : 0
        guard places == pictures, questions.allSatisfy(text.containsTrimmed) else {
          fallback = fallback ?? text
          continue
        }
        return text
      } catch {
        failure = failure ?? error
      }
    }
    if let fallback { return fallback }
    let error = failure ?? SquintError(.badData, "the chat template gives nothing")
    throw SquintError(error.kind, "\(file.path): \(error.message)")
  }

  /// What chat templates ask about the tokenizer.
  private var templateVariables: [String: TemplateValue] {
    var variables: [String: TemplateValue] = [:]
    guard let tokenizer else { return variables }
    for (name, token) in [
      ("bos_token", tokenizer.bosToken), ("eos_token", tokenizer.eosToken), ("pad_token", tokenizer.padToken),
    ] {
      guard let token else { continue }
      variables[name] = .string(String(decoding: tokenizer.bytes(of: token), as: UTF8.self))
    }
    return variables
  }
}

extension ChatMessage {
  /// A message of `text` and pictures: where the text holds markers `<image>` they are the pictures' places, otherwise
  /// the pictures come first.
  ///
  /// - Throws: `usage` where there are markers, but not `pictures` of them.
  public init(role: String, _ text: String, pictures: Int) throws(SquintError) {
    guard pictures > 0 else {
      self.init(role: role, text)
      return
    }
    let pieces = text.pieces(around: PictureMarkup.publicMarker)
    guard pieces.count > 1 else {
      let content = [Part](repeating: .image, count: pictures) + (text.isEmpty ? [] : [.text(text)])
      self.init(role: role, content: .parts(content))
      return
    }
    var parts: [Part] = []
    for (index, piece) in pieces.enumerated() {
      if index > 0 { parts.append(.image) }
      if !piece.isEmpty { parts.append(.text(piece)) }
    }
    self.init(role: role, content: .parts(parts))
  }

  /// The text of the message, without media.
  public var text: String { texts.joined() }

  fileprivate var texts: [String] {
    switch content {
    case .text(let text): return [text]
    case .parts(let parts): return parts.compactMap { if case .text(let text) = $0 { text } else { nil } }
    case .none: return []
    }
  }

  fileprivate var imageCount: Int {
    guard case .parts(let parts) = content else { return 0 }
    return parts.reduce(0) { $0 + ($1 == .image ? 1 : 0) }
  }

  /// The same message with its content as a list of parts.
  fileprivate var inParts: ChatMessage {
    guard case .text(let text) = content else { return self }
    return ChatMessage(role: role, content: .parts([.text(text)]), fields: fields)
  }

  /// The text of the message with `marker` for each picture, on a line of its own where it comes first (as LLaVA has it).
  fileprivate func inline(marker: String) -> String {
    guard case .parts(let parts) = content else { return text }
    var line = ""
    for (index, part) in parts.enumerated() {
      switch part {
      case .text(let text): line += text
      case .image:
        let isFirst = parts[..<index].allSatisfy { $0 == .image }
        line += marker + (isFirst && index + 1 < parts.count ? "\n" : "")
      default: break
      }
    }
    return line
  }
}

extension String {
  /// Whether `text`, without the white space around it, is in this one, byte by byte.
  fileprivate func containsTrimmed(_ text: String) -> Bool {
    let trimmed = text.drop { $0.isWhitespace }.reversed().drop { $0.isWhitespace }.reversed()
    return trimmed.isEmpty || utf8.contains(Array(String(trimmed).utf8))
  }
}
