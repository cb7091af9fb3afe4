/// Finds added tokens in a text: the leftmost, and of those that start at one place the longest.
///
/// A trie whose root is a table of 256. The search looks at each place of the text for at most the length of the longest token;
/// real tokens start with rare bytes, which lets it skip nearly all places.
struct AddedTokenMatcher: Sendable {
  private(set) var tokens: [TokenizerDefinition.AddedToken] = []
  /// Of each node: its first edge (edges of a node are contiguous, ascending by byte), and the token that ends there.
  private var firstEdges: [Int32] = []
  private var endingTokens: [Int32] = []
  private var edgeBytes: [UInt8] = []
  private var edgeNodes: [Int32] = []
  /// The node that a byte at the start leads to; -1 where no token starts with it.
  private var roots = [Int32](repeating: -1, count: 256)

  var isEmpty: Bool { tokens.isEmpty }

  /// At most what matchers of `count` tokens of `bytes` bytes together hold, and what is held beside them while they are made, in
  /// bytes: a node and an edge for each byte, in arrays that grow by doubling.
  static func byteCount(of count: Int, bytes: Int) -> (kept: Int, making: Int) {
    (2 * 13 * bytes + 96 * count, 2 * 24 * bytes + 160 * count)
  }

  /// - Parameter entries: the tokens with the bytes to look for. Of equal ones the first counts; empty ones are left
  ///   out.
  init(_ entries: [(token: TokenizerDefinition.AddedToken, bytes: [UInt8])]) {
    let sorted = entries.enumerated().filter { !$0.element.bytes.isEmpty }
      .sorted {
        $0.element.bytes == $1.element.bytes
          ? $0.offset < $1.offset : $0.element.bytes.lexicographicallyPrecedes($1.element.bytes)
      }
      .map(\.element)
    guard !sorted.isEmpty else { return }
    tokens = sorted.map(\.token)
    // Breadth first: a node is a range of the sorted tokens that share their first `depth` bytes.
    var nodes = [(low: 0, high: sorted.count, depth: 0)]
    var node = 0
    while node < nodes.count {
      let (first, high, depth) = nodes[node]
      var low = first
      firstEdges.append(Int32(edgeBytes.count))
      endingTokens.append(-1)
      while low < high && sorted[low].bytes.count == depth {
        if endingTokens[node] < 0 { endingTokens[node] = Int32(low) }
        low += 1
      }
      while low < high {
        let byte = sorted[low].bytes[depth]
        var end = low + 1
        while end < high && sorted[end].bytes[depth] == byte { end += 1 }
        edgeBytes.append(byte)
        edgeNodes.append(Int32(nodes.count))
        if node == 0 { roots[Int(byte)] = Int32(nodes.count) }
        nodes.append((low, end, depth + 1))
        low = end
      }
      node += 1
    }
    firstEdges.append(Int32(edgeBytes.count))
  }

  /// The longest token at `start` that `controls` lets be found: its place in `tokens`, and where it ends.
  private func longest(at start: Int, in text: TextView, _ controls: ControlTokens?) -> (token: Int, end: Int)? {
    var node = Int(roots[Int(text.base[start])])
    var index = start + 1
    var found: (Int, Int)?
    while true {
      let ending = Int(endingTokens[node])
      if ending >= 0, controls?.admits(tokens[ending].id, at: start..<index) ?? true { found = (ending, index) }
      guard index < text.end else { return found }
      let byte = text.base[index]
      var low = Int(firstEdges[node])
      let end = Int(firstEdges[node + 1])
      var high = end
      while low < high {
        let middle = (low + high) / 2
        if edgeBytes[middle] < byte { low = middle + 1 } else { high = middle }
      }
      guard low < end, edgeBytes[low] == byte else { return found }
      node = Int(edgeNodes[low])
      index += 1
    }
  }

  /// The token whose content is `content`.
  func id(of content: UnsafeBufferPointer<UInt8>) -> Int32? {
    tokens.first { $0.content.utf8.elementsEqual(content) }?.id
  }

  /// Cuts `text` at the added tokens, as `find_matches` of the reference's added_vocabulary.rs does.
  ///
  /// - Parameters:
  ///   - skipsSpecial: leaves special tokens in the text.
  ///   - controls: which tokens are found in a part of the text alone; nil: none.
  ///   - body: takes each part in order: the token's id, or -1 for text, and the part's range in bytes.
  func split(
    _ text: TextView, skipsSpecial: Bool, _ controls: ControlTokens? = nil,
    _ body: (_ id: Int32, _ start: Int, _ end: Int) -> Void
  ) {
    guard text.end > 0 else { return }
    var done = 0
    // The last run of white space that a token took on its right, so that no run is walked twice.
    var spaces = 0..<0
    roots.withUnsafeBufferPointer { roots in
      var index = 0
      while index < text.end {
        guard roots[Int(text.base[index])] >= 0, let match = longest(at: index, in: text, controls) else {
          index += 1
          continue
        }
        var start = index
        var end = match.end
        index = end
        let token = tokens[match.token]
        if skipsSpecial && token.isSpecial { continue }
        if token.isSingleWord {
          let touchesLeft =
            start > 0 && text.category(at: text.previous(start)).bits & UnicodeCategories.word != 0
          let touchesRight = end < text.end && text.category(at: end).bits & UnicodeCategories.word != 0
          if touchesLeft || touchesRight { continue }
        }
        if token.stripsLeft {
          // The reference takes white space back to the previous token's end, which may lie after this start.
          var left = start
          while left > done {
            let previous = text.previous(left)
            if text.category(at: previous).bits & UnicodeCategories.space == 0 { break }
            left = previous
          }
          start = max(left, done)
        }
        if token.stripsRight {
          if spaces.contains(end) {
            end = spaces.upperBound
          } else {
            let first = end
            while end < text.end {
              let (bits, length) = text.category(at: end)
              if bits & UnicodeCategories.space == 0 { break }
              end += length
            }
            spaces = first..<end
          }
        }
        if done < start { body(-1, done, start) }
        // Where the token before it took all of it, as one of white space, nothing is left.
        if start < end { body(token.id, start, end) }
        done = max(done, end)
      }
    }
    if done < text.end { body(-1, done, text.end) }
  }
}

/// The tokens that a text may only have where it says so itself, and not in its content.
struct ControlTokens {
  let ids: Set<Int32>
  /// The ranges of the text in which they are found.
  var own: ByteRanges

  /// Whether `id` may be found in `range`: where a byte of it is content, somebody would have spelled a part of the token.
  func admits(_ id: Int32, at range: Range<Int>) -> Bool { !ids.contains(id) || own.contains(range) }
}
