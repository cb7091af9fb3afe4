import SquintFile
import SquintTemplates
import SquintText

// From text, conversations and tokens to prompts.

extension Model {
  /// The prompt that asks for the answer to `messages`: the checkpoint's chat template, rendered and tokenized.
  ///
  /// The images stand where the messages have `.image` parts. A model without a template gets the contents alone, line by
  /// line, and one whose template knows no images gets them in front of the text. `notes` of the prompt say what was done
  /// where the template did not fit.
  ///
  /// - Parameter allowsControlTokens: whether control tokens that a message spells are tokens. Otherwise they are text, so that
  ///   nobody who writes a part of the prompt can end a turn, or begin one.
  /// - Throws: `usage` where there are more or fewer images than places for them.
  public func prompt(
    _ messages: [ChatMessage], images: [Image] = [], allowsControlTokens: Bool = false
  ) throws(SquintError) -> Prompt {
    guard acceptsImages || images.isEmpty else { throw textAlone }
    // To a model that takes text alone "<image>" is a word.
    let messages = acceptsImages ? messages : messages.map(\.inWords)
    let places = messages.reduce(0) { $0 + $1.imageCount }
    guard places == images.count else { throw Self.mismatch(places: places, images: images.count) }
    let controls = allowsControlTokens ? imageTokens : chat.controls
    if let failure = chat.failure {
      throw SquintError(failure.kind, "\(file.path): \(failure.message); --raw does without the template")
    }
    guard let template = chat.template else {
      var text = PromptText()
      for (index, message) in messages.enumerated() {
        if index > 0 { text.append(.own("\n")) }
        text.append(message.inline(marker: .own(markup.marker)))
      }
      var prompt = try prompt(marked: text, images: images, addSpecialTokens: true, controls)
      prompt.notes = ["the model has no chat template: it gets the words as they are, and may go on with them"]
      return prompt
    }
    let (text, notes) = try render(messages, template)
    // The template writes the special tokens itself.
    var prompt = try prompt(marked: text, images: images, addSpecialTokens: false, controls)
    prompt.notes = notes
    return prompt
  }

  /// The prompt that is `text`, without a chat template; control tokens in it are tokens. Markers `<image>` in it stand for the
  /// images, in order; where it has none, the images come first. `\<image>` is the text.
  ///
  /// - Throws: `usage` where there are more or fewer images than markers.
  public func prompt(
    text: String, images: [Image] = [], addSpecialTokens: Bool = true
  ) throws(SquintError) -> Prompt {
    guard acceptsImages || images.isEmpty else { throw textAlone }
    let marker = acceptsImages ? PromptText.own(markup.marker) : .own(ImageMarkup.publicMarker)
    var marked = PromptText()
    let pieces = ImageMarkup.pieces(of: text)
    for piece in pieces {
      switch piece {
      case .image: marked.append(marker)
      case .text(let text): marked.append(.own(text))
      case .escaped: marked.append(.content(ImageMarkup.publicMarker))
      }
    }
    if acceptsImages, !pieces.contains(.image) {
      // The checkpoint's own image token is a place, too: for the rows alone, without what is around them elsewhere.
      if markup.token != nil, markup.tokenText != markup.marker, marked.pieces(around: markup.tokenText).count > 1 {
        return try prompt(
          marked: marked, by: markup.tokenText, { [.rows(0..<$0.rows)] }, images: images,
          addSpecialTokens: addSpecialTokens, imageTokens)
      }
      // Without places the images come first.
      marked = images.reduce(into: PromptText()) { front, _ in front.append(marker) } + marked
    }
    return try prompt(marked: marked, images: images, addSpecialTokens: addSpecialTokens, imageTokens)
  }

  /// The prompt of these tokens, in which the image token (as often as an image has rows) stands for the images, in order:
  /// what a checkpoint's own processor makes.
  ///
  /// - Throws: `usage` where the image tokens are not as many as the images have rows.
  public func prompt(tokens: [Int32], images: [Image]) throws(SquintError) -> Prompt {
    guard !images.isEmpty else { return Prompt(tokens: tokens) }
    guard acceptsImages else { throw textAlone }
    guard let token = markup.token else {
      throw SquintError(.usage, "\(file.path): it has no image token; give the prompt as text")
    }
    return try place(images, in: tokens, at: token)
  }

  // MARK: Text with markers

  /// The token that stands for rows of images: never what somebody wrote.
  private var imageTokens: Set<Int32> { markup.token.map { [$0] } ?? [] }

  /// No context is as long; each row is a text before it is a token.
  private static let mostRows = 1 << 20

  /// The prompt of `text`, in which each marker that is its own stands for an image, and no token of `controls` is found in
  /// content.
  ///
  /// - Parameters:
  ///   - marker: what marks a place; nil: `markup.marker`.
  ///   - pieces: what an image becomes there; nil: what `markup` makes of it.
  private func prompt(
    marked text: PromptText, by marker: String? = nil, _ pieces: ((Image) -> [ImageMarkup.Piece])? = nil,
    images: [Image], addSpecialTokens: Bool, _ controls: Set<Int32>
  ) throws(SquintError) -> Prompt {
    let pieces = pieces ?? { self.markup.pieces($0.size) }
    guard let tokenizer else { throw noTokenizer }
    func tokens(_ text: PromptText, addSpecialTokens: Bool) throws(SquintError) -> [Int32] {
      let tokens: [Int32]
      do throws(SquintError) {
        tokens = try tokenizer.encode(text, addSpecialTokens: addSpecialTokens, controls: controls)
      } catch {
        throw error.naming(file.path)
      }
      try checkVocabulary(tokens)
      return tokens
    }
    let parts = acceptsImages ? text.pieces(around: marker ?? markup.marker) : [text]
    guard parts.count - 1 == images.count else {
      throw Self.mismatch(places: parts.count - 1, images: images.count)
    }
    guard !images.isEmpty else { return Prompt(tokens: try tokens(text, addSpecialTokens: addSpecialTokens)) }

    guard let token = markup.token else {
      // Each part is tokenized for itself, as LLaVA's `tokenizer_image_token` does it for vocabularies without an image token.
      var prompt = Prompt(tokens: addSpecialTokens ? tokenizer.prefixTokens : [])
      func append(_ text: PromptText) throws(SquintError) {
        prompt.append(Prompt(tokens: try tokens(text, addSpecialTokens: false)))
      }
      try append(parts[0])
      for (image, part) in zip(images, parts.dropFirst()) {
        for piece in pieces(image) {
          switch piece {
          case .text(let text): try append(.own(text))
          case .rows(let rows): prompt.append(rows, of: image)
          }
        }
        try append(part)
      }
      if addSpecialTokens { prompt.append(Prompt(tokens: tokenizer.suffixTokens)) }
      return prompt
    }
    let rows = images.reduce(0) { $0 + $1.rows }
    guard rows <= Self.mostRows else {
      throw SquintError(
        .usage, "the images take \(grouped(rows)) tokens, more than any context holds; give fewer, or smaller ones")
    }
    // As the checkpoint's processor does it: the text with as many image tokens as there are rows is tokenized whole.
    var whole = parts[0]
    for (image, part) in zip(images, parts.dropFirst()) {
      for piece in pieces(image) {
        switch piece {
        case .text(let text): whole.append(.own(text))
        case .rows(let rows): whole.append(.own(String(repeating: markup.tokenText, count: rows.count)))
        }
      }
      whole.append(part)
    }
    return try place(images, in: tokens(whole, addSpecialTokens: addSpecialTokens), at: token)
  }

  /// Puts the rows of `images` where `tokens` has `token`.
  private func place(
    _ images: [Image], in tokens: [Int32], at token: Int32
  ) throws(SquintError) -> Prompt {
    let places = tokens.reduce(0) { $0 + ($1 == token ? 1 : 0) }
    let rows = images.reduce(0) { $0 + $1.rows }
    guard places == rows else {
      throw SquintError(
        .usage,
        "the prompt has \(grouped(places)) image tokens (\(token)), and the \(images.count) images take \(grouped(rows))"
      )
    }
    var prompt = Prompt()
    var position = 0
    var remaining = images[...]
    var taken = 0  // of the first remaining image
    while position < tokens.count {
      let isImage = tokens[position] == token
      var end = tokens[position...].firstIndex { ($0 == token) != isImage } ?? tokens.count
      if isImage, let image = remaining.first {
        end = min(end, position + image.rows - taken)
        prompt.append(taken..<taken + end - position, of: image)
        taken += end - position
        if taken == image.rows {
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

  fileprivate static func mismatch(places: Int, images: Int) -> SquintError {
    func count(_ number: Int, _ word: String) -> String { "\(number) \(word)\(number == 1 ? "" : "s")" }
    return SquintError(
      .usage,
      "the prompt has \(count(places, "place")) for images, and there \(images == 1 ? "is" : "are") "
        + "\(count(images, "picture")); give as many --image as the prompt has \(ImageMarkup.publicMarker), or write "
        + "\\\(ImageMarkup.publicMarker) for the word")
  }

  // MARK: Templates

  /// The prompt that the chat template makes of `messages`, and what people should know of how.
  ///
  /// Templates differ in what they expect of a message: its text, or a list of parts. One that is given the other leaves the text
  /// out or fails; so what comes out decides. Some know no system message: its text then stands before the first question.
  private func render(
    _ messages: [ChatMessage], _ template: ChatTemplate
  ) throws(SquintError) -> (text: PromptText, notes: [String]) {
    var attempts: [(messages: [ChatMessage], notes: [String])] = [(messages, [])]
    if let folded = messages.withoutSystem {
      attempts.append((folded, ["the chat template takes no system text: it stands before the first question"]))
    }
    let images = messages.reduce(0) { $0 + $1.imageCount }
    // What an answer said may be left out, such as its reasoning; what people said may not.
    let said = messages.filter { $0.role != "assistant" }.flatMap(\.texts)
    var failure: SquintError?
    var fallback: PromptText?
    for (messages, notes) in attempts {
      let asParts = messages.map(\.inParts)
      let asText = messages.map { $0.inText(marker: .own(markup.marker)) }
      for form in images > 0 ? [asParts, messages, asText] : [messages, asParts, asText] {
        do throws(SquintError) {
          let text = try template.render(messages: form, addGenerationPrompt: true, variables: chat.variables)
          let places = images > 0 ? text.pieces(around: markup.marker).count - 1 : 0
          guard places == images, said.allSatisfy(text.containsTrimmed) else {
            fallback = fallback ?? text
            continue
          }
          return (text, notes)
        } catch {
          failure = failure ?? error
        }
      }
    }
    if let fallback { return (fallback, ["the chat template changes what was said, or leaves a part of it out"]) }
    let error = failure ?? SquintError(.badData, "the chat template gives nothing")
    throw SquintError(error.kind, "\(file.path): \(error.message); --raw does without the template")
  }
}

extension ChatMessage {
  /// A message of `text` and images: where the text holds markers `<image>` they are the images' places, otherwise
  /// the images come first. `\<image>` is the text.
  ///
  /// - Throws: `usage` where there are images and markers, but not as many of one as of the other.
  public init(role: String, _ text: String, images: Int) throws(SquintError) {
    let pieces = ImageMarkup.pieces(of: text)
    let places = pieces.count { $0 == .image }
    guard images == 0 || places == 0 || places == images else {
      throw Model.mismatch(places: places, images: images)
    }
    var parts: [Part] = places > 0 ? [] : [Part](repeating: .image, count: images)
    for piece in pieces {
      let more: String
      switch piece {
      case .image:
        parts.append(.image)
        continue
      case .text(let text): more = text
      case .escaped: more = ImageMarkup.publicMarker
      }
      if case .text(let before) = parts.last {
        parts[parts.count - 1] = .text(before + more)
      } else {
        parts.append(.text(more))
      }
    }
    self.init(role: role, content: .parts(parts))
    if imageCount == 0 { content = .text(self.text) }
  }

  /// The text of the message, without media.
  public var text: String { texts.joined() }

  fileprivate var texts: [String] {
    switch content {
    case .text(let text): return [text]
    case .parts(let parts): return parts.compactMap { if case .text(let text) = $0 { text } else { nil } }
    case .marked(let text): return [text.string]
    case .none: return []
    }
  }

  fileprivate var imageCount: Int {
    guard case .parts(let parts) = content else { return 0 }
    return parts.reduce(0) { $0 + ($1 == .image ? 1 : 0) }
  }

  /// The same message with its content as a list of parts.
  var inParts: ChatMessage {
    guard case .text(let text) = content else { return self }
    return ChatMessage(role: role, content: .parts([.text(text)]), fields: fields)
  }

  /// The same message for a model that takes text alone: markers are words.
  fileprivate var inWords: ChatMessage {
    guard case .parts(let parts) = content, imageCount > 0 else { return self }
    let words = parts.map { $0 == .image ? .text(ImageMarkup.publicMarker) : $0 }
    var message = ChatMessage(role: role, content: .parts(words), fields: fields)
    if message.texts.count == words.count { message.content = .text(message.text) }
    return message
  }

  /// The same message with its content as one text, in which `marker` stands for each image.
  fileprivate func inText(marker: PromptText) -> ChatMessage {
    guard case .parts = content else { return self }
    return ChatMessage(role: role, content: .marked(inline(marker: marker)), fields: fields)
  }

  /// The text of the message with `marker` for each image, on a line of its own where it comes first (as LLaVA has it).
  fileprivate func inline(marker: PromptText) -> PromptText {
    guard case .parts(let parts) = content else {
      if case .marked(let text) = content { return text }
      return .content(text)
    }
    var line = PromptText()
    for (index, part) in parts.enumerated() {
      switch part {
      case .text(let text): line.append(.content(text))
      case .image:
        line.append(marker)
        let isFirst = parts[..<index].allSatisfy { $0 == .image }
        if isFirst && index + 1 < parts.count { line.append(.own("\n")) }
      default: break
      }
    }
    return line
  }
}

extension [ChatMessage] {
  /// The conversation with the text of its system message before the first question; nil where it has none, or no question.
  fileprivate var withoutSystem: [ChatMessage]? {
    guard let system = first, system.role == "system", let place = firstIndex(where: { $0.role == "user" }) else {
      return nil
    }
    var messages = self
    let text = system.text + "\n\n"
    switch messages[place].content {
    case .text(let question): messages[place].content = .text(text + question)
    case .parts(var parts):
      // Behind the images that come first.
      parts.insert(.text(text), at: parts.firstIndex { $0 != .image } ?? parts.count)
      messages[place].content = .parts(parts)
    case .marked(let question): messages[place].content = .marked(.content(text) + question)
    case .none: messages[place].content = .text(text)
    }
    messages.removeFirst()
    return messages
  }
}

extension ImageMarkup {
  /// A piece of what somebody wrote.
  enum Written: Equatable {
    case text(String)
    /// The marker: an image's place.
    case image
    /// The marker behind a backslash, which takes its meaning away.
    case escaped
  }

  /// What somebody wrote, cut at the markers.
  static func pieces(of text: String) -> [Written] {
    var pieces: [Written] = []
    var rest = text[...]
    while let marker = rest.utf8.firstRange(of: Array(publicMarker.utf8)) {
      let isEscaped = rest[..<marker.lowerBound].utf8.last == UInt8(ascii: "\\")
      let before = isEscaped ? rest.utf8.index(before: marker.lowerBound) : marker.lowerBound
      if before > rest.startIndex { pieces.append(.text(String(rest[..<before]))) }
      pieces.append(isEscaped ? .escaped : .image)
      rest = rest[marker.upperBound...]
    }
    if !rest.isEmpty { pieces.append(.text(String(rest))) }
    return pieces
  }
}

extension PromptText {
  /// Whether `text`, without the white space around it, is in this one, byte by byte.
  fileprivate func containsTrimmed(_ text: String) -> Bool {
    let trimmed = text.drop { $0.isWhitespace }.reversed().drop { $0.isWhitespace }.reversed()
    return trimmed.isEmpty || bytes.contains(Array(String(trimmed).utf8))
  }
}
