import SquintCompute
import SquintFile

/// A text decoder in a file, whatever its graph: what the planner needs of it before any memory is taken. `Graphs.swift` says which
/// type computes which graph.
package protocol DecoderModel: Sendable {
  var blueprint: any DecoderBlueprint { get }
  /// What a pass reads, in order.
  var units: DecoderUnits { get }

  /// Reserves the decoder's buffers.
  func reserve(_ residency: Residency, _ size: DecoderSize, in plan: inout ArenaPlan) throws(SquintError)
    -> any DecoderRegions

  /// The decoder in the memory that `reserve` described.
  ///
  /// - Throws: `internalError` where the system gives no threads to read weights.
  func decoder(
    _ regions: any DecoderRegions, reader: DirectReader, in arena: Arena, _ compute: Compute
  ) throws(SquintError) -> any Decoder
}

/// The buffers of a decoder, as its own type knows them.
package protocol DecoderRegions: Sendable {}

/// What a session wants of a decoder's memory.
package struct DecoderSize: Sendable {
  /// The positions of a sequence.
  package var context: Int
  /// The sequences that are followed at a time: beams.
  package var sequences: Int
  package var kvType: KVType
  /// The rows that go through the layers together: of a prompt, or the beams. Weights that do not stay are read once for them.
  package var rows: Int
  /// The rows that are computed at a time; at least the beams.
  package var chunk: Int
  /// The rows whose logits are kept at a time.
  package var logitRows: Int
  package var threads: Int
  /// Whether media may come when the layers remember a conversation.
  package var keepsStateWhileEncoding: Bool
  /// Behind how many of the first layers something is added to rows of media.
  package var deepLevels: Int

  package init(
    context: Int, sequences: Int, kvType: KVType, rows: Int, chunk: Int, logitRows: Int, threads: Int,
    keepsStateWhileEncoding: Bool, deepLevels: Int = 0
  ) {
    self.context = context
    self.sequences = sequences
    self.kvType = kvType
    self.rows = rows
    self.chunk = chunk
    self.logitRows = logitRows
    self.threads = threads
    self.keepsStateWhileEncoding = keepsStateWhileEncoding
    self.deepLevels = deepLevels
  }

  /// The phases in which what the layers remember must be there.
  var statePhases: Phases { keepsStateWhileEncoding ? [.encode, .prefill, .decode] : [.prefill, .decode] }
}

/// A text decoder with its memory: rows go in at `x`, logits come out at `logits`.
///
/// Use it from one thread at a time. Allocates nothing once it runs.
package protocol Decoder {
  /// The instruction set whose kernels run.
  var instructionSet: String { get }
  /// Hands out the weights.
  var stream: WeightStream { get }
  /// The largest number of rows of a pass.
  var rows: Int { get }
  /// The rows that go through the layers: [rows, width]. Encoders' features are written here, too.
  var x: Rows { get }
  /// [logit rows, vocabulary]
  var logits: Rows { get }
  /// Takes what is computed, step by step, where somebody wants to see it.
  var trace: Trace? { get nonmutating set }

  /// Writes the embedding of `token` to row `row` of `x`. The token must be less than the vocabulary.
  ///
  /// - Throws: `inputOutput` where the embedding is not in memory and cannot be read.
  func embed(_ token: Int, row: Int) throws(SquintError)

  /// Writes a row of a medium to row `row` of `x`.
  ///
  /// - Parameter features: [1 + deep levels, width]: the row, and what is added to it behind each of the first layers; valid until the
  ///   next pass is done.
  func embed(_ features: UnsafePointer<Float>, row: Int)

  /// Says where row `row` of the next pass stands for the rotary embedding.
  func place(_ row: Int, at position: RotaryPosition)

  /// Sends the first `count` rows of `x` through all layers, in place, and adds them to what these remember.
  ///
  /// - Parameters:
  ///   - placement: the rows' places in the cache.
  ///   - projects: whether `project` comes next.
  ///   - shouldContinue: asked before each layer.
  /// - Returns: whether it was finished.
  @discardableResult func forward(
    count: Int, _ placement: Placement, projects: Bool, while shouldContinue: (_ layer: Int) -> Bool
  ) -> Bool

  /// Computes the logits [vocabulary] of the `count` rows of `x` from `first` on, into the first rows of `logits`.
  func project(first: Int, count: Int)

  /// Makes sequence `target` remember the positions `positions` as sequence `source` does; what is before them is the same in both.
  func copyState(_ positions: Range<Int>, from source: Int, to target: Int)

  /// Makes sequence 0 remember no more than its first `count` positions.
  ///
  /// - Returns: how many it remembers: `count`, or fewer where what the layers keep does not reach so far back. What is missing is
  ///   computed again.
  func cutBack(to count: Int) -> Int

  /// Notes that sequence 0 remembers `count` positions, to which it may be cut back later.
  func keepSnapshot(at count: Int)
}

extension Decoder {
  @discardableResult package func forward(count: Int, _ placement: Placement) -> Bool {
    forward(count: count, placement, projects: true, while: { _ in true })
  }
}
