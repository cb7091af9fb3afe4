import SquintFile
import SquintTemplates
import SquintText

// From text, conversations and tokens to prompts.

extension Model {
  /// The prompt that asks for the answer to `messages`: the checkpoint's chat template, rendered and tokenized.
  ///
  /// The media stand where the messages have places for media of their kind, in order. A model without a template gets the
  /// contents alone, line by line, and one whose template knows no media gets them in front of the text. `notes` of the prompt say
  /// what was done where the template did not fit.
  ///
  /// - Parameter allowsControlTokens: whether control tokens that a message spells are tokens. Otherwise they are text, so that
  ///   nobody who writes a part of the prompt can end a turn, or begin one.
  /// - Throws: `usage` where there are more or fewer media than places for them.
  public func prompt(
    _ messages: [ChatMessage], media: [Medium] = [], allowsControlTokens: Bool = false
  ) throws(SquintError) -> Prompt {
    try checkKinds(media)
    // To a model that takes text alone "<image>" is a word.
    let messages = messages.map { $0.inWords(but: accepts) }
    let media = try Self.placed(media, at: messages.flatMap(\.places))
    let controls = allowsControlTokens ? mediaTokens : chat.controls
    if let failure = chat.failure {
      throw failure.adding(before: "\(file.path): ", remedies: [.noTemplate])
    }
    guard let template = chat.template else {
      var text = PromptText()
      for (index, message) in messages.enumerated() {
        if index > 0 { text.append(.own("\n")) }
        text.append(message.inline(marker: ownMarker))
      }
      var prompt = try prompt(marked: text, media: media, addSpecialTokens: true, controls)
      prompt.notes += ["the model has no chat template: it gets the words as they are, and may go on with them"]
      return prompt
    }
    let (text, notes) = try render(messages, template)
    // The template writes the special tokens itself.
    var prompt = try prompt(marked: text, media: media, addSpecialTokens: false, controls)
    prompt.notes += notes
    return prompt
  }

  /// The prompt that is `text`, without a chat template; control tokens in it are tokens. Markers such as `<image>` in it stand for
  /// the media of their kind, in order; where it has none, the media come first. `\<image>` is the text.
  ///
  /// - Throws: `usage` where there are more or fewer media than markers.
  public func prompt(
    text: String, media: [Medium] = [], addSpecialTokens: Bool = true
  ) throws(SquintError) -> Prompt {
    try checkKinds(media)
    var marked = PromptText()
    var hasPlaces = false
    for piece in MediaMarkup.pieces(of: text) {
      switch piece {
      case .medium(let kind) where accepts(kind):
        marked.append(ownMarker(kind))
        hasPlaces = true
      case .medium(let kind):
        marked.append(.own(kind.marker))
        // The checkpoint's own places may be called as those of another kind: InstructMol's molecules are <image>.
        hasPlaces = hasPlaces || ownMarkers.contains { $0.text == kind.marker }
      case .text(let text): marked.append(.own(text))
      case .escaped(let kind): marked.append(.content(kind.marker))
      }
    }
    if !hasPlaces, isExpanded(marked, media) {
      let prompt = try prompt(marked: marked, by: [], media: [], addSpecialTokens: addSpecialTokens, mediaTokens)
      return try place(media, in: prompt.tokens)
    }
    // What stands for a medium in the checkpoint's own prompts is a place, where it is more than the placeholder of its rows.
    hasPlaces =
      hasPlaces
      || modalities.map { markup($0.kind) }.contains {
        $0.marker != $0.tokenText && $0.marker.contains($0.tokenText) && marked.pieces(around: $0.marker).count > 1
      }
    if !hasPlaces {
      // The checkpoint's own placeholder is a place, too: for the rows alone, without what is around them elsewhere.
      var own = modalities.map { markup($0.kind) }.filter {
        $0.token != nil && $0.tokenText != $0.kind.marker && marked.pieces(around: $0.tokenText).count > 1
      }
      // Of kinds with one placeholder it is that of which there are media.
      own = own.filter { markup in
        media.contains { $0.kind == markup.kind }
          || !own.contains { $0.tokenText == markup.tokenText && $0.kind != markup.kind }
      }
      if !own.isEmpty {
        return try prompt(
          marked: marked, by: own.map { ($0.kind, $0.tokenText) }, { self.markup($0.kind).places($0.size) },
          media: media,
          addSpecialTokens: addSpecialTokens, mediaTokens)
      }
      // Without places the media come first.
      marked = media.reduce(into: PromptText()) { front, medium in front.append(ownMarker(medium.kind)) } + marked
    }
    return try prompt(marked: marked, media: media, addSpecialTokens: addSpecialTokens, mediaTokens)
  }

  /// The prompt of these tokens, in which the token of a kind of media (as often as a medium has rows) stands for those, in order:
  /// what a checkpoint's own processor makes.
  ///
  /// - Throws: `usage` where the tokens are not as many as the media have rows.
  public func prompt(tokens: [Int32], media: [Medium]) throws(SquintError) -> Prompt {
    guard !media.isEmpty else { return Prompt(tokens: tokens) }
    try checkKinds(media)
    for medium in media.flatMap(\.parts) where markup(medium.kind).token == nil {
      throw SquintError(.usage, "\(file.path): it has no token for \(medium.kind.plural); give the prompt as text")
    }
    return try place(media, in: tokens)
  }

  // MARK: Text with markers

  /// The tokens that stand for rows of media: never what somebody wrote.
  private var mediaTokens: Set<Int32> { Set(markups.compactMap(\.token)) }

  /// What stands for a medium in a rendered template.
  private func ownMarker(_ kind: MediaKind) -> PromptText { .own(markup(kind).marker) }

  /// The markers of all kinds that the model takes.
  private var ownMarkers: [(kind: MediaKind, text: String)] {
    modalities.map { ($0.kind, markup($0.kind).marker) }
  }

  /// No context is as long; each row is a text before it is a token.
  private static let mostRows = 1 << 20

  private func checkKinds(_ media: [Medium]) throws(SquintError) {
    for medium in media { _ = try modality(medium.kind) }
  }

  /// `media` in the order of `places`, of which each takes the next medium of its kind.
  ///
  /// - Throws: `usage` where there are more or fewer than places for them.
  private static func placed(_ media: [Medium], at places: [MediaKind]) throws(SquintError) -> [Medium] {
    try check(places: places, media: media.map(\.kind))
    var byKind = Dictionary(grouping: media, by: \.kind).mapValues { $0[...] }
    return places.compactMap { byKind[$0]?.popFirst() }
  }

  /// - Throws: `usage` where there are more or fewer media of a kind than places for them.
  fileprivate static func check(places: [MediaKind], media: [MediaKind]) throws(SquintError) {
    let isGiven = !media.isEmpty
    // A kind of which there are media without a place: what is meant by the marker of one of which there are none.
    let other = MediaKind.allCases.first { kind in media.count { $0 == kind } > places.count { $0 == kind } }
    for kind in MediaKind.allCases {
      let (places, media) = (places.count { $0 == kind }, media.count { $0 == kind })
      guard places != media else { continue }
      if media == 0, isGiven { throw misplaced(kind, other) }
      throw SquintError(
        .usage,
        "the prompt has \(places) place\(places == 1 ? "" : "s") for \(kind.plural), and there \(media == 1 ? "is" : "are") "
          + "\(media) \(media == 1 ? kind.noun : kind.plural)",
        remedies: [.asManyAsMarkers(kind: kind.rawValue, marker: kind.marker)])
    }
  }

  /// The error of a marker of `kind`, of which there are no media, but of others, those of `other` without a place: InstructMol's own prompts
  /// call molecules `<image>`.
  private static func misplaced(_ kind: MediaKind, _ other: MediaKind?) -> SquintError {
    let given = other.map { "what is given is \($0.withArticle); write \($0.marker) where it goes" }
    return SquintError(
      .usage,
      "the prompt has \(kind.marker), the place of \(kind.withArticle), and "
        + "\(given ?? "none is given; give one if the model takes \(kind.plural)"), or write \\\(kind.marker) for the word"
    )
  }

  /// The parts of `text` between what marks places there, and whose places these are.
  private static func cut(
    _ text: PromptText, at markers: [(kind: MediaKind, text: String)]
  ) -> (parts: [PromptText], places: [MediaKind]) {
    var parts = [text]
    var places: [MediaKind] = []
    for marker in markers {
      var finer: [PromptText] = []
      var all: [MediaKind] = []
      for (index, part) in parts.enumerated() {
        let pieces = part.pieces(around: marker.text)
        finer += pieces
        all += repeatElement(marker.kind, count: pieces.count - 1)
        if index < places.count { all.append(places[index]) }
      }
      (parts, places) = (finer, all)
    }
    return (parts, places)
  }

  /// The prompt of `text`, in which each marker that is its own stands for a medium, and no token of `controls` is found in
  /// content.
  ///
  /// - Parameters:
  ///   - markers: what marks places; nil: the markers of templates.
  ///   - pieces: what a medium becomes there; nil: what its markup makes of it.
  private func prompt(
    marked text: PromptText, by markers: [(kind: MediaKind, text: String)]? = nil,
    _ pieces: ((Medium) -> [MediaMarkup.Piece])? = nil, media: [Medium], addSpecialTokens: Bool, _ controls: Set<Int32>
  ) throws(SquintError) -> Prompt {
    let pieces = pieces ?? { self.markup($0.kind).pieces($0.size) }
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
    let (parts, places) = Self.cut(text, at: markers ?? ownMarkers)
    let media = try Self.placed(media, at: places)
    guard !media.isEmpty else { return Prompt(tokens: try tokens(text, addSpecialTokens: addSpecialTokens)) }

    guard media.flatMap(\.parts).allSatisfy({ markup($0.kind).token != nil }) else {
      // Each part is tokenized for itself, as LLaVA's `tokenizer_image_token` does it for vocabularies without an image token.
      var prompt = Prompt(tokens: addSpecialTokens ? tokenizer.prefixTokens : [])
      func append(_ text: PromptText) throws(SquintError) {
        prompt.append(Prompt(tokens: try tokens(text, addSpecialTokens: false)))
      }
      try append(parts[0])
      for (medium, part) in zip(media, parts.dropFirst()) {
        for piece in pieces(medium) {
          switch piece {
          case .text(let text): try append(.own(text))
          case .rows(let rows): prompt.append(rows, of: medium)
          case .sound(let rows): if let sound = medium.sound { prompt.append(rows, of: sound) }
          }
        }
        try append(part)
      }
      prompt.joinSounds()
      if addSpecialTokens { prompt.append(Prompt(tokens: tokenizer.suffixTokens)) }
      return prompt
    }
    let rows = media.reduce(0) { $0 + $1.size.rowsWithSound }
    guard rows <= Self.mostRows else {
      throw SquintError(
        .usage,
        "the \(Self.names(media)) take \(grouped(rows)) tokens, more than any context holds; give fewer, or smaller ones"
      )
    }
    // As the checkpoint's processor does it: the text with as many placeholders as there are rows is tokenized whole.
    var whole = parts[0]
    for (medium, part) in zip(media, parts.dropFirst()) {
      for piece in pieces(medium) {
        switch piece {
        case .text(let text): whole.append(.own(text))
        case .rows(let rows):
          whole.append(.own(String(repeating: markup(medium.kind).tokenText, count: rows.count)))
        case .sound(let rows):
          whole.append(.own(String(repeating: markup(.audio).tokenText, count: rows.count)))
        }
      }
      whole.append(part)
    }
    return try place(media, in: tokens(whole, addSpecialTokens: addSpecialTokens))
  }

  /// Whether `text` has the placeholders of the model as often as `media` have rows, not as often as there are media: what the
  /// checkpoint's own processor makes.
  private func isExpanded(_ text: PromptText, _ media: [Medium]) -> Bool {
    let parts = media.flatMap(\.parts)
    guard parts.allSatisfy({ markup($0.kind).token != nil }) else { return false }
    let own = Dictionary(grouping: parts) { markup($0.kind).tokenText }
    return own.contains { $1.reduce(0) { $0 + $1.rows } != $1.count }
      && own.allSatisfy { placeholder, parts in
        text.pieces(around: placeholder).count - 1 == parts.reduce(0) { $0 + $1.rows }
      }
  }

  /// What media of one kind, or of several, are called.
  private static func names(_ media: [Medium]) -> String {
    let kinds = Set(media.map(\.kind))
    return kinds.count == 1 ? media[0].kind.plural : "media"
  }

  /// Puts the rows of `media`, which are in the order of their places, where `tokens` has the tokens of their kinds; several kinds may
  /// have one.
  private func place(_ media: [Medium], in tokens: [Int32]) throws(SquintError) -> Prompt {
    var remaining: [Int32: ArraySlice<Medium>] = [:]
    for medium in media.flatMap(\.parts) {
      guard let token = markup(medium.kind).token else { continue }
      remaining[token, default: []].append(medium)
    }
    for (token, own) in remaining {
      let places = tokens.count { $0 == token }
      let rows = own.reduce(0) { $0 + $1.rows }
      guard places == rows else {
        let names = Set(own.map(\.kind)).count == 1 ? own[own.startIndex].kind.noun : "media"
        throw SquintError(
          .usage,
          "the prompt has \(grouped(places)) \(names) tokens (id \(token)), and \(own.count == 1 ? "the \(own[own.startIndex].kind.noun) takes" : "the \(own.count) \(Self.names(Array(own))) take") "
            + "\(grouped(rows))")
      }
    }
    var prompt = Prompt()
    var position = 0
    var taken: [Int32: Int] = [:]  // of the first that remains
    while position < tokens.count {
      let token = tokens[position]
      let isPlace = remaining[token] != nil
      var end = tokens[position...].firstIndex { isPlace ? $0 != token : remaining[$0] != nil } ?? tokens.count
      if isPlace, let medium = remaining[token]?.first {
        let first = taken[token] ?? 0
        end = min(end, position + medium.rows - first)
        prompt.append(first..<first + end - position, of: medium)
        taken[token] = first + end - position
        if taken[token] == medium.rows {
          remaining[token]?.removeFirst()
          taken[token] = 0
        }
      } else {
        prompt.append(Prompt(tokens: Array(tokens[position..<end])))
      }
      position = end
    }
    prompt.joinSounds()
    try checkVocabulary(prompt.tokens)
    return prompt
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
    let places = messages.flatMap(\.places)
    let markers = ownMarkers.filter { places.contains($0.kind) }
    // What an answer said may be left out, such as its reasoning; what people said may not.
    let said = messages.filter { $0.role != "assistant" }.flatMap(\.texts)
    var failure: SquintError?
    var fallback: PromptText?
    for (messages, notes) in attempts {
      let asParts = messages.map(\.inParts)
      let asText = messages.map { $0.inText(marker: ownMarker) }
      for form in !places.isEmpty ? [asParts, messages, asText] : [messages, asParts, asText] {
        do throws(SquintError) {
          let text = try template.render(messages: form, addGenerationPrompt: true, variables: chat.variables)
          guard Self.cut(text, at: markers).places == places, said.allSatisfy(text.containsTrimmed) else {
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
    throw error.adding(before: "\(file.path): ", remedies: [.noTemplate])
  }
}

extension ChatMessage {
  /// A message of `text` and these media: where the text holds markers such as `<image>` they are places of media of their kind,
  /// otherwise the media come first. `\<image>` is the text.
  ///
  /// - Throws: `usage` where there are media and markers, but not as many of one as of the other.
  public init(role: String, _ text: String, media: [Medium]) throws(SquintError) {
    try self.init(role: role, text, media: media.map(\.kind))
  }

  /// The same for `images` images.
  public init(role: String, _ text: String, images: Int) throws(SquintError) {
    try self.init(role: role, text, media: [MediaKind](repeating: .image, count: images))
  }

  private init(role: String, _ text: String, media: [MediaKind]) throws(SquintError) {
    let pieces = MediaMarkup.pieces(of: text)
    let places = pieces.compactMap { if case .medium(let kind) = $0 { kind } else { nil } }
    if !media.isEmpty, !places.isEmpty { try Model.check(places: places, media: media) }
    var parts: [Part] = places.isEmpty ? media.map(\.part) : []
    for piece in pieces {
      let more: String
      switch piece {
      case .medium(let kind):
        parts.append(kind.part)
        continue
      case .text(let text): more = text
      case .escaped(let kind): more = kind.marker
      }
      if case .text(let before) = parts.last {
        parts[parts.count - 1] = .text(before + more)
      } else {
        parts.append(.text(more))
      }
    }
    self.init(role: role, content: .parts(parts))
    if self.places.isEmpty { content = .text(self.text) }
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

  /// The kinds of the media that have places in it.
  fileprivate var places: [MediaKind] {
    guard case .parts(let parts) = content else { return [] }
    return parts.compactMap(\.kind)
  }

  /// The same message with its content as a list of parts.
  var inParts: ChatMessage {
    guard case .text(let text) = content else { return self }
    return ChatMessage(role: role, content: .parts([.text(text)]), fields: fields)
  }

  /// The same message for a model that takes only some kinds of media: markers of the others are words.
  fileprivate func inWords(but accepts: (MediaKind) -> Bool) -> ChatMessage {
    guard case .parts(let parts) = content, places.contains(where: { !accepts($0) }) else { return self }
    let words = parts.map { part -> Part in
      guard let kind = part.kind, !accepts(kind) else { return part }
      return .text(kind.marker)
    }
    var message = ChatMessage(role: role, content: .parts(words), fields: fields)
    if message.texts.count == words.count { message.content = .text(message.text) }
    return message
  }

  /// The same message with its content as one text, in which `marker` of its kind stands for each medium.
  fileprivate func inText(marker: (MediaKind) -> PromptText) -> ChatMessage {
    guard case .parts = content else { return self }
    return ChatMessage(role: role, content: .marked(inline(marker: marker)), fields: fields)
  }

  /// The text of the message with `marker` for each medium, on a line of its own where it comes first (as LLaVA has it).
  fileprivate func inline(marker: (MediaKind) -> PromptText) -> PromptText {
    guard case .parts(let parts) = content else {
      if case .marked(let text) = content { return text }
      return .content(text)
    }
    var line = PromptText()
    for (index, part) in parts.enumerated() {
      if case .text(let text) = part { line.append(.content(text)) }
      if let kind = part.kind {
        line.append(marker(kind))
        let isFirst = parts[..<index].allSatisfy { $0.kind != nil }
        if isFirst && index + 1 < parts.count { line.append(.own("\n")) }
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
      // Behind the media that come first.
      parts.insert(.text(text), at: parts.firstIndex { $0.kind == nil } ?? parts.count)
      messages[place].content = .parts(parts)
    case .marked(let question): messages[place].content = .marked(.content(text) + question)
    case .none: messages[place].content = .text(text)
    }
    messages.removeFirst()
    return messages
  }
}

extension MediaMarkup {
  /// A piece of what somebody wrote.
  enum Written: Equatable {
    case text(String)
    /// A marker: a place for a medium of its kind.
    case medium(MediaKind)
    /// A marker behind a backslash, which takes its meaning away.
    case escaped(MediaKind)
  }

  /// What somebody wrote, cut at the markers.
  static func pieces(of text: String) -> [Written] {
    var pieces: [Written] = []
    var rest = text[...]
    while let (kind, marker) = firstMarker(in: rest) {
      let isEscaped = rest[..<marker.lowerBound].utf8.last == UInt8(ascii: "\\")
      let before = isEscaped ? rest.utf8.index(before: marker.lowerBound) : marker.lowerBound
      if before > rest.startIndex { pieces.append(.text(String(rest[..<before]))) }
      pieces.append(isEscaped ? .escaped(kind) : .medium(kind))
      rest = rest[marker.upperBound...]
    }
    if !rest.isEmpty { pieces.append(.text(String(rest))) }
    return pieces
  }

  private static func firstMarker(in text: Substring) -> (kind: MediaKind, range: Range<String.Index>)? {
    MediaKind.allCases.compactMap { kind in
      text.utf8.firstRange(of: Array(kind.marker.utf8)).map { (kind, $0) }
    }.min { $0.1.lowerBound < $1.1.lowerBound }
  }
}

extension PromptText {
  /// Whether `text`, without the white space around it, is in this one, byte by byte.
  fileprivate func containsTrimmed(_ text: String) -> Bool {
    let trimmed = text.drop { $0.isWhitespace }.reversed().drop { $0.isWhitespace }.reversed()
    return trimmed.isEmpty || bytes.contains(Array(String(trimmed).utf8))
  }
}
