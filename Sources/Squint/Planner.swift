import SquintCompute
import SquintFile
import SquintMedia
import SquintModels

/// Finds the plan of a session that fits the budget and is the fastest: everything in memory where that fits, else as much as
/// fits, and the rest read again in every pass.
struct Planner {
  /// What is the same for every plan that is tried.
  struct Conditions {
    let machine: Machine
    let budget: Int
    let units: DecoderUnits
    /// nil where no medium is encoded.
    let media: MediaDemand?
  }

  /// What the media of a session take.
  struct MediaDemand {
    /// Of each kind the layouts of its media.
    let uses: [(modality: Modality, layouts: [MediaLayout])]
    /// The rows of the decoder that are kept at a time.
    let rows: Int
    /// The memory of decoding them, and of what came through pipes.
    let decodingBytes: Int
    /// What each unit that an encoder looks at takes more, in bytes, where they are decoded for it.
    let streamedUnitBytes: Int
    let heldBytes: Int

    /// The units of the medium that has most.
    var mostUnits: Int { uses.flatMap(\.layouts).map(\.count).max() ?? 1 }
  }

  private let model: Model
  private let options: SessionOptions
  private let conditions: Conditions

  /// - Throws: `usage` where the session is to encode media that the model does not take.
  init(_ model: Model, _ options: SessionOptions) throws(SquintError) {
    let machine = Machine()
    self.init(
      model, options,
      Conditions(
        machine: machine, budget: options.memory ?? machine.availableBytes,
        units: model.decoder.units, media: try Self.demand(options, model)))
  }

  /// The same for other options: what is known of the machine and the model is not asked again.
  private func with(_ options: SessionOptions) throws(SquintError) -> Planner {
    Planner(
      model, options,
      Conditions(
        machine: conditions.machine, budget: conditions.budget, units: conditions.units,
        media: try Self.demand(options, model)))
  }

  private init(_ model: Model, _ options: SessionOptions, _ conditions: Conditions) {
    self.model = model
    self.options = options
    self.conditions = conditions
  }

  private static func demand(_ options: SessionOptions, _ model: Model) throws(SquintError) -> MediaDemand? {
    switch options.media {
    case .none: return nil
    case .once(let media):
      guard !media.isEmpty else { return nil }
      let sizes = media.flatMap(\.parts)
      for size in sizes { _ = try model.modality(size.kind) }
      let uses = model.modalities.map { modality in
        (modality, sizes.filter { $0.kind == modality.kind }.map(\.cost.layout))
      }
      // All stay decoded until they are encoded, and one is being decoded.
      let waiting = sizes.reduce(0) { $0 + $1.unitBytes }
      let decoding = sizes.map { $0.decodingBytes - $0.unitBytes }.max() ?? 0
      return MediaDemand(
        uses: uses.filter { !$0.1.isEmpty }, rows: sizes.reduce(0) { $0 + $1.rows }, decodingBytes: waiting + decoding,
        streamedUnitBytes: sizes.map(\.cost.streamedUnitBytes).max() ?? 0,
        heldBytes: sizes.reduce(0) { $0 + $1.heldBytes })
    case .always:
      guard !model.modalities.isEmpty else { return nil }
      var uses: [(Modality, [MediaLayout])] = []
      var (rows, decodingBytes) = (options.known.map(\.rowsWithSound).max() ?? 0, 0)
      var streamedUnitBytes = 0
      let known = options.known.flatMap(\.parts)
      for modality in model.modalities {
        // Media may be of any length: those that are known count, and others no larger than they, or than what is usual.
        var sizes = known.filter { $0.kind == modality.kind }
        if modality.kind != .video { sizes.append(try model.largest(modality, options.limits)) }
        guard !sizes.isEmpty else { continue }
        uses.append((modality, sizes.map(\.cost.layout)))
        rows = max(rows, sizes.map(\.rows).max() ?? 0)
        decodingBytes = max(decodingBytes, sizes.map(\.decodingBytes).max() ?? 0)
        streamedUnitBytes = max(streamedUnitBytes, sizes.map(\.cost.streamedUnitBytes).max() ?? 0)
      }
      guard !uses.isEmpty else { return nil }
      return MediaDemand(
        uses: uses, rows: rows, decodingBytes: decodingBytes,
        streamedUnitBytes: streamedUnitBytes, heldBytes: 0)
    }
  }

  // MARK: Context

  /// Long enough for a medium and a conversation about it; more must be asked for.
  private static let defaultContext = 4096
  /// For the question and the answer, where the media take more than the default context.
  private static let roomBesideMedia = 1024
  /// A default context shorter than this would surprise more than an error does.
  private static let leastContext = 256
  /// The default where weights have to be read again and again: what the cache takes, they cannot have.
  private static let streamingContext = 512
  /// The room for an answer whose length is not known, and for a question beside media.
  private static let usualAnswer = 128
  static let usualQuestion = 64

  /// The plan for the options.
  ///
  /// - Throws: `doesNotFit` where there is none, with what would fit.
  func plan() throws(SquintError) -> SessionPlan {
    if let context = options.context {
      guard let plan = try fitting(context) else { throw doesNotFit(context) }
      return plan
    }
    let contexts = try defaultContexts()
    if let plan = try longest(contexts, { (context) throws(SquintError) in try inMemory(context) }) { return plan }
    let least = contexts.lowerBound
    // A few rows at a time may make room for all weights.
    if let plan = try fitting(least), plan.bytesReadPerToken == 0 { return plan }
    let enough = max(least, min(contexts.upperBound, Self.streamingContext))
    if let plan = try longest(least...enough, { (context) throws(SquintError) in try fitting(context) }) { return plan }
    throw doesNotFit(least)
  }

  /// The contexts that are tried where none is asked for: from one that is of use to one that is long enough.
  private func defaultContexts() throws(SquintError) -> ClosedRange<Int> {
    let limit = model.trainedContext
    let mediaRows = conditions.media?.rows ?? 0
    let prompt = options.prompt ?? (mediaRows > 0 ? mediaRows + Self.usualQuestion : nil)
    let needed = min(prompt.map { $0 + (options.answer ?? Self.usualAnswer) } ?? 0, limit)
    let wanted = max(min(limit, max(Self.defaultContext, mediaRows + Self.roomBesideMedia)), needed)
    // Who says how long both are needs no more.
    let isKnown = options.prompt != nil && options.answer != nil
    return max(isKnown ? 1 : min(wanted, Self.leastContext), needed)...wanted
  }

  /// The plan for a session which may have less than `options` asks for: first a smaller cache, then a shorter context, then fewer
  /// units where media are still to come. Nil where none fits.
  func adapted() throws(SquintError) -> SessionPlan? {
    var options = options
    options.kvType = .int8
    let least = max((options.prompt ?? 0) + min(options.answer ?? 1, Self.usualAnswer), 1)
    var units = Set<Int>()
    if options.media == .always {
      for modality in model.modalities where modality.kind == .image {
        for size in try modality.sizes() { units.insert(size.units) }
      }
    }
    if let most = options.maximumTiles { units = units.filter { $0 <= most } }
    let limits: [Int?] = units.isEmpty ? [options.maximumTiles] : units.sorted().reversed()
    for limit in limits {
      options.maximumTiles = limit
      let planner = try with(options)
      let longest = max(options.context ?? Self.streamingContext, least)
      let plan = try planner.longest(least...longest) { (context) throws(SquintError) in
        try planner.fitting(context)
      }
      if let plan { return plan }
    }
    return nil
  }

  /// The plan for the longest context that has one, in steps of 64 positions; nil where none has.
  private func longest(
    _ contexts: ClosedRange<Int>, _ plan: (Int) throws(SquintError) -> SessionPlan?
  ) throws(SquintError) -> SessionPlan? {
    // Nearly always the whole fits.
    if let whole = try plan(contexts.upperBound) { return whole }
    var best: SessionPlan?
    var (low, high) = (contexts.lowerBound, contexts.upperBound - 1)
    while low <= high {
      let middle = (low + high) / 2
      let context = max(middle / 64 * 64, contexts.lowerBound)
      if let found = try plan(context) {
        best = found
        low = middle + 1
      } else {
        high = middle - 1
      }
    }
    return best
  }

  /// The plan for the context that is asked for, or the shortest default.
  private func fittingAny() throws(SquintError) -> SessionPlan? {
    if let context = options.context { return try fitting(context) }
    return try fitting(defaultContexts().lowerBound)
  }

  // MARK: Weights

  /// The plan in which all weights stay in memory; nil where it does not fit.
  private func inMemory(_ context: Int) throws(SquintError) -> SessionPlan? {
    var weights = everythingStays
    let plan = try make(context, weights)
    if plan.fits || options.media != .always || conditions.media == nil { return plan.fits ? plan : nil }
    weights.takesTurns = true
    let turns = try make(context, weights)
    return turns.fits ? turns : nil
  }

  /// The plan that fits, in which as many weights stay in memory as can; nil where there is none.
  private func fitting(_ context: Int) throws(SquintError) -> SessionPlan? {
    if let plan = try inMemory(context) { return plan }
    // Buffers of one module move when those of another become smaller, and a phase for which room was made may then be over the
    // budget by a little: with so much kept free it is not.
    var margin = 0
    for _ in 0..<8 {
      guard let plan = try streaming(context, keepingFree: margin) else { return nil }
      if plan.fits { return plan }
      margin += max(plan.peak - conditions.budget, 4096)
    }
    return nil
  }

  /// The plan in which weights leave where their phase does not fit; nil where none is small enough. All of it together may be more
  /// than the budget.
  private func streaming(_ context: Int, keepingFree margin: Int) throws(SquintError) -> SessionPlan? {
    var weights = everythingStays
    weights.takesTurns = options.media == .always
    for index in weights.encoders.indices {
      let kind = weights.encoders[index].kind
      guard
        try makeRoom(
          where: { $0.media == kind }, keepingFree: margin, context, &weights,
          for: { self.encodersWeights($0, index) })
      else {
        return nil
      }
    }
    guard
      try makeRoom(
        where: { $0.name != .encode }, keepingFree: margin, context, &weights,
        for: { self.decodersWeights($0, context) })
    else { return nil }
    return try make(context, weights)
  }

  private var everythingStays: SessionPlan.Weights {
    SessionPlan.Weights(
      decoder: Residency(keeping: conditions.units.ranges), rows: max(longestStep, options.beams),
      encoders: (conditions.media?.uses ?? []).map {
        SessionPlan.Weights.Encoder(
          kind: $0.modality.kind, residency: Residency(keeping: $0.modality.encoder.streamUnits))
      })
  }

  /// The rows that are computed together at most: a chunk, or a prompt that is shorter.
  private var longestStep: Int {
    guard let prompt = options.prompt else { return options.chunk }
    let rows = passes.min() ?? 1
    return min(options.chunk, max((prompt + rows - 1) / rows * rows, rows))
  }

  /// Where the phases of a module do not fit, changes `weights` to the cheapest of `candidates` that does.
  ///
  /// - Parameters:
  ///   - isOwn: whether a phase is one of the module's.
  ///   - margin: what of the budget is not to be used.
  ///   - candidates: made from the weights so far.
  /// - Returns: whether it fits.
  private func makeRoom(
    where isOwn: (SessionPlan.Phase) -> Bool, keepingFree margin: Int, _ context: Int,
    _ weights: inout SessionPlan.Weights,
    for candidates: (SessionPlan.Weights) -> [Candidate]
  ) throws(SquintError) -> Bool {
    func left(_ weights: SessionPlan.Weights) throws(SquintError) -> Int {
      let own = try make(context, weights).phases.filter(isOwn)
      return conditions.budget - margin - (own.map(\.byteCount).max() ?? 0)
    }
    if try left(weights) >= 0 { return true }
    var best: (weights: SessionPlan.Weights, cost: Int)?
    for candidate in candidates(weights) {
      let spare = try left(candidate.weights)
      guard spare >= 0 else { continue }
      let (weights, cost) = candidate.keeping(spare)
      if best.map({ cost < $0.cost }) ?? true { best = (weights, cost) }
    }
    guard let best else { return false }
    weights = best.weights
    return true
  }

  /// A way to make room for one module: the least that it takes, and what becomes of it with `spare` bytes more, in which weights
  /// can stay; the cost is what is read then.
  private struct Candidate {
    let weights: SessionPlan.Weights
    let keeping: (_ spare: Int) -> (weights: SessionPlan.Weights, cost: Int)
  }

  /// More units at a time need more memory, and need the weights of encoder `index` less often.
  private func encodersWeights(_ weights: SessionPlan.Weights, _ index: Int) -> [Candidate] {
    let all = weights.encoders[index].residency.units
    let layouts = conditions.media?.uses[index].layouts ?? []
    let most = layouts.map(\.count).max() ?? 1
    func passes(_ units: Int) -> Int { layouts.reduce(0) { $0 + $1.passes(of: units) } }
    // Of those that need the weights equally often the one with the fewest units takes the least.
    return (1...most).filter { $0 == 1 || passes($0) < passes($0 - 1) }.map { units in
      var weights = weights
      weights.encoders[index].units = units
      weights.encoders[index].residency = Residency(units: all, keepingAtMost: 0)
      let passes = passes(units)
      return Candidate(weights: weights) { spare in
        var kept = weights
        let residency = Residency(units: all, keepingAtMost: spare)
        kept.encoders[index].residency = residency
        return (kept, passes * residency.streamedBytes)
      }
    }
  }

  /// More rows at a time need more memory, and need the weights less often in a prompt; each token of the answer needs them.
  private func decodersWeights(_ weights: SessionPlan.Weights, _ context: Int) -> [Candidate] {
    let streamed = conditions.units
    let prompt = min(options.prompt ?? Self.usualPrompt, context)
    let answer = min(options.answer ?? Self.usualAnswer, context)
    let rows = passes.filter { $0 >= options.beams }
    // Fewer rows may make room for all weights, and without slots.
    let whole = rows.filter { $0 < options.chunk }.map { rows in
      var weights = weights
      weights.rows = rows
      return Candidate(weights: weights) { _ in (weights, 0) }
    }
    // What a prompt and an answer read. The experts of a chunk are read for its rows.
    func cost(_ residency: Residency, rows: Int) -> Int {
      let passes = (prompt + rows - 1) / rows
      let chunk = min(rows, options.chunk)
      let experts = residency.pool.map { $0.table.bytesRead(rows: chunk, slots: $0.slots) } ?? 0
      return (passes + answer) * residency.streamedBytes + (prompt + chunk - 1) / chunk * experts
        + answer * (residency.pool?.bytesReadPerToken ?? 0)
    }
    // What every row needs stays before experts, of which a row needs few.
    let experts = rows.compactMap { rows -> Candidate? in
      guard let least = streamed.keeping(experts: 0), let pool = least.pool else { return nil }
      var weights = weights
      weights.rows = rows
      weights.decoder = least
      return Candidate(weights: weights) { spare in
        var kept = weights
        kept.decoder.pool = ExpertPool(pool.table, slots: pool.slots + spare / pool.table.slotBytes)
        return (kept, cost(kept.decoder, rows: rows))
      }
    }
    return whole + experts
      + rows.map { rows in
        var weights = weights
        weights.rows = rows
        weights.decoder = streamed.keeping(atMost: 0)
        return Candidate(weights: weights) { spare in
          var kept = weights
          kept.decoder = streamed.keeping(atMost: spare)
          return (kept, cost(kept.decoder, rows: rows))
        }
      }
  }

  /// The rows of a pass that are tried, the first that is as good as any counts: a chunk or more, then less than one, which is
  /// slower to compute. However they cut a prompt, its answer is the same.
  private var passes: [Int] {
    let c = model.decoder.blueprint.attention
    let all = (0...8).map { Compute.rowsPerPiece(queryHeads: c.heads / c.kvHeads) << $0 }
    return all.filter { $0 >= options.chunk } + all.reversed().filter { $0 < options.chunk }
  }

  /// The tokens of a prompt whose length is not known.
  private static let usualPrompt = 512

  /// The plan in which no more stays than `bytes` hold.
  func plan(keeping bytes: Int, rows: Int, units: Int) throws(SquintError) -> SessionPlan {
    var weights = everythingStays
    weights.decoder = conditions.units.keeping(atMost: bytes)
    weights.rows = rows
    for index in weights.encoders.indices {
      let all = weights.encoders[index].residency.units
      weights.encoders[index].residency = Residency(units: all, keepingAtMost: bytes)
      weights.encoders[index].units = units
    }
    weights.takesTurns = options.media == .always
    let context: Int
    if let asked = options.context { context = asked } else { context = try defaultContexts().upperBound }
    return try make(context, weights)
  }

  private func make(_ context: Int, _ weights: SessionPlan.Weights) throws(SquintError) -> SessionPlan {
    try SessionPlan(model, options, context: context, weights, conditions)
  }

  // MARK: Refusal

  /// What does not fit, and what would.
  private func doesNotFit(_ context: Int) -> SquintError {
    let least = (try? leastBytes(context)) ?? Int.max
    var remedies: [SquintError.Remedy] = []
    let needed = options.prompt.map { $0 + 1 } ?? 1
    if options.context != nil, needed <= context,
      let shorter = (try? longest(needed...context) { (context) throws(SquintError) in try fitting(context) }) ?? nil
    {
      remedies.append(.context(shorter.context))
    }
    if options.kvType != .int8 {
      var smaller = options
      smaller.kvType = .int8
      if let planner = try? with(smaller), ((try? planner.fitting(context)) ?? nil) != nil {
        remedies.append(.kvType(KVType.int8.rawValue))
      }
    }
    if let tiles = unitsThatFit() { remedies.append(.tiles(tiles)) }
    if options.memory != nil {
      remedies.append(.memory(least))
    } else if remedies.isEmpty {
      remedies += [.closePrograms, .smallerModel]
    }
    return SquintError(
      .doesNotFit,
      "\(model.file.path): a context of \(context) takes \(grouped(least)) bytes at least, and "
        + "\(grouped(conditions.budget)) are " + (options.memory == nil ? "free" : "allowed"),
      needed: least, available: conditions.budget, remedies: remedies)
  }

  /// How many units media could have; nil where that is not what does not fit.
  private func unitsThatFit() -> Int? {
    guard let most = conditions.media?.mostUnits else { return nil }
    func fits(_ units: Int) -> Bool {
      var options = options
      options.maximumTiles = units
      if case .once(let sizes) = self.options.media {
        let smaller = sizes.map { $0.limited(toUnits: units) }
        options.media = .once(smaller)
        options.prompt = self.options.prompt.map { prompt in
          prompt - sizes.reduce(0) { $0 + $1.rowsWithSound } + smaller.reduce(0) { $0 + $1.rowsWithSound }
        }
      }
      guard let planner = try? with(options) else { return false }
      return ((try? planner.fittingAny()) ?? nil) != nil
    }
    // Fewer take less.
    var (low, high) = (0, most - 1)
    while low < high {
      let middle = (low + high + 1) / 2
      if fits(middle) { low = middle } else { high = middle - 1 }
    }
    return low > 0 ? low : nil
  }

  /// What the session takes where no weight stays that need not.
  private func leastBytes(_ context: Int) throws(SquintError) -> Int {
    var weights = everythingStays
    weights.takesTurns = options.media == .always
    for index in weights.encoders.indices {
      if let encoder = encodersWeights(weights, index).first { weights = encoder.weights }
    }
    if let decoder = decodersWeights(weights, context).last { weights = decoder.weights }
    return min(try make(context, weights).peak, try make(context, everythingStays).peak)
  }
}
