import SquintFile
import SquintTemplates
import SquintText

/// How conversations are written for the model: its chat template, the tokens that the template alone may write, and those with
/// which it ends an answer.
package struct ChatFormat: Sendable {
  /// nil for a model that was not made for conversation.
  package let template: ChatTemplate?
  /// Why there is none, where the file holds one that cannot be read.
  package let failure: SquintError?
  /// What chat templates ask about the tokenizer.
  package let variables: [String: TemplateValue]
  /// The tokens that are never found in what somebody says.
  package let controls: Set<Int32>
  /// The tokens that end an answer, beside those that the file names.
  package let ends: Set<Int32>

  /// - Parameters:
  ///   - source: the template; empty where there is none.
  ///   - stopTokens: those that the file names.
  ///   - media: the tokens that stand for rows of media, and all that is written around them.
  package init(
    source: String, tokenizer: Tokenizer?, stopTokens: Set<Int32> = [],
    media: (tokens: Set<Int32>, texts: String) = ([], "")
  ) {
    var template: ChatTemplate?
    var failure: SquintError?
    if !source.isEmpty {
      do { template = try ChatTemplate(source: source) } catch { failure = error }
    }
    self.template = template
    self.failure = failure
    guard let tokenizer else {
      variables = [:]
      controls = []
      ends = []
      return
    }
    var variables: [String: TemplateValue] = [:]
    var controls = stopTokens
    for (name, token) in [
      ("bos_token", tokenizer.bosToken), ("eos_token", tokenizer.eosToken), ("pad_token", tokenizer.padToken),
    ] {
      guard let token else { continue }
      controls.insert(token)
      variables[name] = .text(.own(String(decoding: tokenizer.bytes(of: token), as: UTF8.self)))
    }
    self.variables = variables

    let added = tokenizer.addedTokens
    var ends = TurnEnds.ids(in: added)
    // What people never spell by chance, and what the template, or a medium, writes.
    let written = source + media.texts
    controls.formUnion(ends)
    controls.formUnion(media.tokens)
    for token in added where token.isSpecial || Self.isControl(token.content, written: written) {
      controls.insert(token.id)
    }
    if let end = template.flatMap({ Self.end(of: $0, variables, tokenizer, controls) }) { ends.insert(end) }
    self.controls = controls.intersection(added.map(\.id))
    self.ends = ends
  }

  /// Whether a token that nothing marks as special controls the model all the same, as its name says.
  private static func isControl(_ name: String, written: String) -> Bool {
    guard name.contains(where: \.isLetter), name.contains(where: { "<>[]{}|".contains($0) }) else { return false }
    return name.hasPrefix("<|") && name.hasSuffix("|>") || written.utf8.contains(Array(name.utf8))
  }

  // MARK: The end of an answer

  /// The token of `controls` that `template` puts behind an answer, with nothing but white space between.
  ///
  /// An answer that ends the conversation counts first: one in its middle may be followed by the head of the next turn, which no
  /// answer holds either. A token that also stands between an answer and the reasoning before it ends none.
  private static func end(
    of template: ChatTemplate, _ variables: [String: TemplateValue], _ tokenizer: Tokenizer, _ controls: Set<Int32>
  ) -> Int32? {
    let (question, reasoning, answer) = ("Where?", "Perhaps.", "There.")
    // Enough for two turns; a template that would take longer is found out when it is asked for a prompt.
    var limits = TemplateLimits()
    limits.steps = 100_000
    limits.output = 1 << 20
    limits.text = 4 << 20
    func render(_ messages: [ChatMessage]) -> PromptText? {
      try? template.render(messages: messages, addGenerationPrompt: false, variables: variables, limits: limits)
    }
    func tokens(_ text: PromptText) -> [Int32] {
      (try? tokenizer.encode(text, addSpecialTokens: false, controls: controls)) ?? []
    }
    for isLast in [true, false] {
      var messages = [ChatMessage(role: "user", question), ChatMessage(role: "assistant", answer)]
      if !isLast { messages.append(ChatMessage(role: "user", question)) }
      for var form in [messages, messages.map(\.inParts)] {
        guard let text = render(form), let place = text.firstContent(answer) else { continue }
        let end = tokens(text[place.upperBound..<text.bytes.count]).first { id in
          controls.contains(id)
            || tokenizer.decode(CollectionOfOne(id), skipSpecialTokens: false).contains { !$0.isWhitespace }
        }
        guard let end, controls.contains(end) else { continue }
        form[1].fields = ["reasoning_content": .string(reasoning)]
        if let text = render(form), let before = text.firstContent(reasoning), let place = text.firstContent(answer),
          before.upperBound < place.lowerBound,
          tokens(text[before.upperBound..<place.lowerBound]).contains(end)
        {
          continue
        }
        return end
      }
    }
    return nil
  }
}
