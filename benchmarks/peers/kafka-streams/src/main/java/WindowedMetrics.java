import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.util.Properties;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.Suppressed;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.kstream.Windowed;
import org.apache.kafka.streams.state.BuiltInDslStoreSuppliers.InMemoryDslStoreSuppliers;
import org.apache.kafka.streams.state.Stores;

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
    ObjectReader json = new ObjectMapper().readerFor(Measured.Row.class);
    return read(builder, topic, (name, value) -> parse(() -> json.readValue(value)), progress);
  }

  static KStream<String, Measured> batches(
      StreamsBuilder builder, String topic, Progress progress) {
    return read(builder, topic, (name, value) -> parse(() -> Measured.Batch.of(value)), progress);
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
