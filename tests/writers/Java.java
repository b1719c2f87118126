// Writes numbered lines with logback or log4j2, whichever the class path and the configuration have, as many as it is told
// to on standard input: java -cp JARS Java.java. Both are asked through what they have in common, so that neither has to be
// there for the other.

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.lang.reflect.Method;

public class Java {
    public static void main(String[] arguments) throws Exception {
        boolean logback = arguments[0].equals("logback");
        String factory = logback ? "org.slf4j.LoggerFactory" : "org.apache.logging.log4j.LogManager";
        String type = logback ? "org.slf4j.Logger" : "org.apache.logging.log4j.Logger";
        Object logger = Class.forName(factory).getMethod("getLogger", String.class).invoke(null, "test");
        Method info = Class.forName(type).getMethod("info", String.class);
        BufferedReader orders = new BufferedReader(new InputStreamReader(System.in));
        int number = 0;
        for (String order = orders.readLine(); order != null; order = orders.readLine()) {
            for (int i = 0; i < Integer.parseInt(order.trim()); i++) {
                info.invoke(logger, String.format("line %07d of a program that logs", number++));
            }
            System.out.println("done");
            System.out.flush();
        }
    }
}
