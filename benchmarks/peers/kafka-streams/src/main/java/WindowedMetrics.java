import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.annotation.JsonProperty;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Properties;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.Suppressed;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.kstream.Windowed;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.BuiltInDslStoreSuppliers.InMemoryDslStoreSuppliers;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessageUnpacker;

/**
 * Count, mean, error rate and p95 of measured prompts by arm, in windows of 10 s that hop by 1 s.
 *
 * <p>Arguments: mode, bootstrap servers, input topic, output topic, application id, rows. Modes:
 *
 * <ul>
 *   <li>{@code hopping}: one JSON record a prompt, hopping windows as the manual has them;
 *   <li>{@code panes}: the same records, in panes of 1 s that are merged when they have closed;
 *   <li>{@code batched}: the same panes, from driftgate's log, whose records hold many rows.
 * </ul>
 *
 * <p>One thread; state in memory, with its changelog on Kafka; event time is the records' own. The
 * key is the arm (of the log: the service, and both arms are one aggregate), so that nothing is
 * partitioned again. Each twentieth of the rows is said on standard output, with the time.
 */
public final class WindowedMetrics {
  static final long WINDOW_MS = 10_000;
  static final long HOP_MS = 1_000;

  public static void main(String[] arguments) {
    String mode = arguments[0];
    String input = arguments[2];
    Progress progress = new Progress(Long.parseLong(arguments[5]));
    Duration window = Duration.ofMillis(WINDOW_MS);
    Duration hop = Duration.ofMillis(HOP_MS);
    TimeWindows hopping = TimeWindows.ofSizeWithNoGrace(window).advanceBy(hop);
    TimeWindows panes = TimeWindows.ofSizeWithNoGrace(hop);

    StreamsBuilder builder = new StreamsBuilder();
    KStream<String, String> results =
        switch (mode) {
          case "hopping" -> finals(rows(builder, input, progress), 1, hopping)
              .flatMap((key, totals) -> totals.results(key.key(), key.window().start()));
          case "panes" -> merged(builder, finals(rows(builder, input, progress), 1, panes));
          case "batched" -> merged(builder, finals(batches(builder, input, progress), 2, panes));
          default -> throw new IllegalArgumentException(mode);
        };
    results.to(arguments[3], Produced.with(Serdes.String(), Serdes.String()));

    KafkaStreams streams = new KafkaStreams(builder.build(), settings(arguments[1], arguments[4]));
    Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(5))));
    streams.start();
  }

  static Properties settings(String servers, String applicationId) {
    Properties settings = new Properties();
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, applicationId);
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, servers);
    settings.put(StreamsConfig.DSL_STORE_SUPPLIERS_CLASS_CONFIG, InMemoryDslStoreSuppliers.class);
    // A crash computes a second again, as with driftgate.
    settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 1000);
    settings.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
    return settings;
  }

  static KStream<String, Measured> rows(StreamsBuilder builder, String topic, Progress progress) {
    ObjectReader json = new ObjectMapper().readerFor(Row.class);
    return read(builder, topic, (name, value) -> parse(() -> json.readValue(value)), progress);
  }

  static KStream<String, Measured> batches(
      StreamsBuilder builder, String topic, Progress progress) {
    return read(builder, topic, (name, value) -> parse(() -> Batch.of(value)), progress);
  }

  static KStream<String, Measured> read(
      StreamsBuilder builder, String topic, Deserializer<Measured> values, Progress progress) {
    Serde<Measured> serde = Serdes.serdeFrom((name, value) -> null, values);
    return builder.stream(topic, Consumed.with(Serdes.String(), serde))
        .peek((key, measured) -> progress.add(measured.rows()));
  }

  /** The totals of each key and window, once, when its time has passed. */
  static KStream<Windowed<String>, Totals> finals(
      KStream<String, Measured> measured, int arms, TimeWindows windows) {
    return measured
        .groupByKey()
        .windowedBy(windows)
        .aggregate(
            () -> new Totals(arms),
            (key, value, totals) -> value.addTo(totals),
            Materialized.with(Serdes.String(), Totals.SERDE))
        .suppress(Suppressed.untilWindowCloses(Suppressed.BufferConfig.unbounded()))
        .toStream();
  }

  static KStream<String, String> merged(
      StreamsBuilder builder, KStream<Windowed<String>, Totals> panes) {
    builder.addStateStore(
        Stores.keyValueStoreBuilder(
            Stores.inMemoryKeyValueStore(Merge.STORE), Serdes.String(), Totals.SERDE));
    return panes.process(Merge::new, Merge.STORE);
  }

  /** Makes windows of the last panes of a key; panes come in their order. */
  static final class Merge implements Processor<Windowed<String>, Totals, String, String> {
    static final String STORE = "panes";

    private ProcessorContext<String, String> context;
    private KeyValueStore<String, Totals> store;

    @Override
    public void init(ProcessorContext<String, String> context) {
      this.context = context;
      this.store = context.getStateStore(STORE);
    }

    @Override
    public void process(Record<Windowed<String>, Totals> closed) {
      String key = closed.key().key();
      long start = closed.key().window().start();
      List<KeyValue<Long, Totals>> kept = kept(key);
      long last = kept.isEmpty() ? start : kept.get(kept.size() - 1).key + HOP_MS;
      // Windows that ended since the last pane: without new rows, as nothing was measured then.
      for (long end = last + HOP_MS; end <= start && end < last + WINDOW_MS; end += HOP_MS) {
        forward(key, end, kept, closed.timestamp());
      }
      kept.add(KeyValue.pair(start, closed.value()));
      forward(key, start + HOP_MS, kept, closed.timestamp());
      store.put(name(key, start), closed.value());
      kept.stream()
          .filter(pane -> pane.key <= start - WINDOW_MS)
          .forEach(pane -> store.delete(name(key, pane.key)));
    }

    private List<KeyValue<Long, Totals>> kept(String key) {
      List<KeyValue<Long, Totals>> panes = new ArrayList<>();
      try (KeyValueIterator<String, Totals> found =
          store.range(name(key, 0), name(key, Long.MAX_VALUE))) {
        found.forEachRemaining(
            pane ->
                panes.add(
                    KeyValue.pair(
                        Long.parseLong(pane.key.substring(pane.key.lastIndexOf('/') + 1)),
                        pane.value)));
      }
      return panes;
    }

    private void forward(
        String key, long end, List<KeyValue<Long, Totals>> panes, long timestamp) {
      Totals window = null;
      for (KeyValue<Long, Totals> pane : panes) {
        if (pane.key >= end - WINDOW_MS && pane.key < end) {
          window = window == null ? pane.value.copy() : window.add(pane.value);
        }
      }
      if (window != null) {
        for (KeyValue<String, String> result : window.results(key, end - WINDOW_MS)) {
          context.forward(new Record<>(result.key, result.value, timestamp));
        }
      }
    }

    private static String name(String key, long start) {
      return String.format(Locale.ROOT, "%s/%019d", key, start);
    }
  }

  /** What a record holds. */
  interface Measured {
    int rows();

    Totals addTo(Totals totals);
  }

  /** One prompt; its arm is the key. */
  @JsonIgnoreProperties(ignoreUnknown = true)
  record Row(@JsonProperty("processing_seconds") double seconds, @JsonProperty("error") boolean error)
      implements Measured {
    @Override
    public int rows() {
      return 1;
    }

    @Override
    public Totals addTo(Totals totals) {
      totals.add(0, seconds, error);
      return totals;
    }
  }

  /** Columns of many prompts, of both arms; other records of the log have none. */
  record Batch(ByteBuffer flags, ByteBuffer seconds) implements Measured {
    private static final int CANDIDATE = 1;
    private static final int REJECTED = 2;
    private static final int SYSTEM_ERROR = 16;
    private static final ByteBuffer EMPTY = ByteBuffer.allocate(0);

    static Batch of(byte[] value) throws IOException {
      ByteBuffer flags = EMPTY;
      ByteBuffer seconds = EMPTY;
      try (MessageUnpacker fields = MessagePack.newDefaultUnpacker(value)) {
        for (int left = fields.unpackMapHeader(); left > 0; left--) {
          switch (fields.unpackString()) {
            case "flags" -> flags = column(fields);
            case "processing_seconds" -> seconds = column(fields);
            default -> fields.skipValue();
          }
        }
      }
      return new Batch(flags, seconds);
    }

    private static ByteBuffer column(MessageUnpacker fields) throws IOException {
      byte[] bytes = fields.readPayload(fields.unpackBinaryHeader());
      return ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN);
    }

    @Override
    public int rows() {
      return flags.capacity() / Short.BYTES;
    }

    @Override
    public Totals addTo(Totals totals) {
      for (int row = 0; row < rows(); row++) {
        int set = flags.getShort(row * Short.BYTES);
        if ((set & REJECTED) == 0) {
          float taken = seconds.getFloat(row * Float.BYTES);
          totals.add(set & CANDIDATE, taken, (set & SYSTEM_ERROR) != 0);
        }
      }
      return totals;
    }
  }

  /** Sums over the rows of one arm, or of both. */
  static final class Totals {
    /** Logarithmic buckets from 1 ms to 60 s: a quantile is exact to 9 %. */
    private static final int BUCKETS = 64;

    private static final double LOWEST_S = 1e-3;
    private static final double LOG_LOWEST = Math.log(LOWEST_S);
    private static final double LOG_GROWTH = Math.log(60.0 / LOWEST_S) / BUCKETS;
    private static final int ARM_BYTES = Long.BYTES * 3 + Integer.BYTES * BUCKETS;
    private static final String[] ARMS = {"control", "candidate"};

    static final Serde<Totals> SERDE =
        Serdes.serdeFrom((topic, totals) -> totals.write(), (topic, bytes) -> Totals.read(bytes));

    private final long[] counts;
    private final long[] errors;
    private final double[] sums;
    private final int[] histograms;

    Totals(int arms) {
      counts = new long[arms];
      errors = new long[arms];
      sums = new double[arms];
      histograms = new int[arms * BUCKETS];
    }

    void add(int arm, double seconds, boolean error) {
      counts[arm]++;
      sums[arm] += seconds;
      if (error) {
        errors[arm]++;
      }
      double bucket = (Math.log(seconds) - LOG_LOWEST) / LOG_GROWTH;
      histograms[arm * BUCKETS + (int) Math.max(0, Math.min(bucket, BUCKETS - 1))]++;
    }

    Totals add(Totals other) {
      for (int arm = 0; arm < counts.length; arm++) {
        counts[arm] += other.counts[arm];
        errors[arm] += other.errors[arm];
        sums[arm] += other.sums[arm];
      }
      for (int bucket = 0; bucket < histograms.length; bucket++) {
        histograms[bucket] += other.histograms[bucket];
      }
      return this;
    }

    Totals copy() {
      return new Totals(counts.length).add(this);
    }

    /** A result as JSON for each arm that has rows, keyed by it. */
    List<KeyValue<String, String>> results(String key, long start) {
      List<KeyValue<String, String>> results = new ArrayList<>();
      for (int arm = 0; arm < counts.length; arm++) {
        if (counts[arm] > 0) {
          String name = counts.length == 1 ? key : ARMS[arm];
          String json =
              String.format(
                  Locale.ROOT,
                  "{\"start_ms\":%d,\"arm\":\"%s\",\"count\":%d,\"mean\":%s,\"error_rate\":%s,"
                      + "\"p95\":%s}",
                  start,
                  name,
                  counts[arm],
                  sums[arm] / counts[arm],
                  (double) errors[arm] / counts[arm],
                  p95(arm));
          results.add(KeyValue.pair(name, json));
        }
      }
      return results;
    }

    private double p95(int arm) {
      double wanted = 0.95 * counts[arm];
      int bucket = 0;
      for (long seen = histograms[arm * BUCKETS]; seen < wanted; bucket++) {
        seen += histograms[arm * BUCKETS + bucket + 1];
      }
      return LOWEST_S * Math.exp(LOG_GROWTH * (bucket + 0.5));
    }

    private byte[] write() {
      ByteBuffer bytes = ByteBuffer.allocate(counts.length * ARM_BYTES);
      for (int arm = 0; arm < counts.length; arm++) {
        bytes.putLong(counts[arm]).putLong(errors[arm]).putDouble(sums[arm]);
      }
      bytes.asIntBuffer().put(histograms);
      return bytes.array();
    }

    private static Totals read(byte[] written) {
      ByteBuffer bytes = ByteBuffer.wrap(written);
      Totals totals = new Totals(written.length / ARM_BYTES);
      for (int arm = 0; arm < totals.counts.length; arm++) {
        totals.counts[arm] = bytes.getLong();
        totals.errors[arm] = bytes.getLong();
        totals.sums[arm] = bytes.getDouble();
      }
      bytes.asIntBuffer().get(totals.histograms);
      return totals;
    }
  }

  /** Says how many rows were taken, twenty times. */
  static final class Progress {
    private final long step;
    private long taken;

    Progress(long rows) {
      step = rows / 20;
    }

    void add(int rows) {
      long marks = taken / step;
      taken += rows;
      if (taken / step > marks) {
        System.out.printf(
            "{\"rows\":%d,\"at_ms\":%d}%n", taken, System.currentTimeMillis());
      }
    }
  }

  interface Parser {
    Measured parse() throws IOException;
  }

  static Measured parse(Parser parser) {
    try {
      return parser.parse();
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }
}
