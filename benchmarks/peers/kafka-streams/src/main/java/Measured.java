import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.annotation.JsonProperty;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessageUnpacker;

/** What a record holds. */
interface Measured {
  int rows();

  Totals addTo(Totals totals);

  /** One prompt; its arm is the key. */
  @JsonIgnoreProperties(ignoreUnknown = true)
  record Row(
      @JsonProperty("processing_seconds") double seconds, @JsonProperty("error") boolean error)
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
}
