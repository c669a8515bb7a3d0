// Kafka's command line tools in one JVM, so that a suite pays for its start once. Reads a command per line, fields
// separated by tabs: the tool's class, then its arguments. Answers with what the tool printed, then a line that is a
// control character (4) and the exit code.

import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import org.apache.kafka.common.utils.Exit;

public class Tools {
    // What a tool had said, and its exit code, when it first wanted to exit: some catch what stops them then.
    static ByteArrayOutputStream said = new ByteArrayOutputStream();
    static byte[] saidAtExit;
    static int exitCode;

    static void exit(int code, String message) {
        if (saidAtExit == null) {
            saidAtExit = said.toByteArray();
            exitCode = code;
        }
        throw new IllegalStateException("the tool has ended");
    }

    static int run(String[] command) {
        try {
            String[] arguments = Arrays.copyOfRange(command, 1, command.length);
            Class.forName(command[0]).getMethod("main", String[].class).invoke(null, (Object) arguments);
            return 0;
        } catch (InvocationTargetException thrown) {
            if (saidAtExit == null) {
                thrown.getCause().printStackTrace(System.out);
            }
            return 1;
        } catch (ReflectiveOperationException missing) {
            missing.printStackTrace(System.out);
            return 127;
        }
    }

    public static void main(String[] none) throws Exception {
        Exit.setExitProcedure(Tools::exit);
        Exit.setHaltProcedure(Tools::exit);
        PrintStream answers = System.out;
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = commands.readLine(); line != null; line = commands.readLine()) {
            said = new ByteArrayOutputStream();
            saidAtExit = null;
            PrintStream into = new PrintStream(said, true, StandardCharsets.UTF_8);
            System.setOut(into);
            System.setErr(into);
            int code = run(line.split("\t"));
            into.flush();
            boolean exited = saidAtExit != null;
            answers.println(new String(exited ? saidAtExit : said.toByteArray(), StandardCharsets.UTF_8));
            answers.println("\u0004" + (exited ? exitCode : code));
            answers.flush();
        }
    }
}
